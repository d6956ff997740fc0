"""From pixels to the bytes of camera chunks, as small as the quality that was asked for allows.

`choose` decides once per camera how it is encoded, by trying it on some of its frames; `encode_gop` encodes
one chunk by that decision and measures what it wrote. Chunks do not depend on each other and encoders
release the GIL, so chunks are encoded in parallel by threads, each by an encoder of one thread: what is
written does not depend on how many there are.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from ..schemas import VideoFormat
from .bitstream import Inspector, without_sei
from .decode import (
    MATRICES,
    MOST_PIXELS,
    RANGES,
    Pixels,
    decode_into,
    plane_view,
    video_context,
    write_pixels,
)
from .gop import Entry, pack
from .quality import Quality, measure, psnr, squared_errors

__all__ = [
    "SLOTS",
    "Encoding",
    "Profile",
    "Quality",
    "choose",
    "encode_gop",
    "encoding_of",
    "format_of",
]

Profile = Literal["auto", "train", "stream", "archive", "source", "lossless"]

SLOTS = 32
"""Frames of a chunk, and of the runs that `choose` encodes."""

_SAMPLE = 2 * SLOTS  # frames that a trial encodes
_TRIALS = 4  # encodes before a trial settles for the best it has
_CLOSE_DB = 0.25  # more than was asked for by this is not worth another trial
_RETRIES = 4  # encodes of a chunk that turns out to be harder than the sample
_SLACK_DB = 0.5  # what the worst frame may fall short of the quality that was asked for
_NEAR_DB = 0.2  # what more it may fall short before its chunk is encoded again
_HEADROOM_DB = 1.5  # what chroma subsampling has to leave to the encoder, or 4:4:4 is taken
_ARCHIVE_GAIN = 0.5  # AV1 costs 1.6 to 4 times the decoding, so it has to halve the size
_MEASURED = 4  # frames of a chunk whose quality is measured
_LOSSLESS_KEYS = 8  # frames from key to key: x264 has no B-frames there, and P-frames cost much
_LEAST_SIDE_AV1 = 64  # pixels; SVT-AV1 promises nothing below
_RATE = 30  # frames per second that encoders are told; the real times are not theirs

_FAST = {"tune": "fastdecode", "preset": "medium"}
# Measured on noisy and on smooth views at equal PSNR. Searching motion quickly halves the encoder's time, for
# 6 % of size; an anchor every 16 frames instead of every 8 saves a tenth of the decoder's time, for 8 %. No
# adaptive quantisation and no 8 x 8 transform save another tenth of it, and 2 to 28 % of size.
_QUICK = "ref=1:mixed-refs=0:me=dia:subme=2:aq-mode=0:8x8dct=0"
_STAR = {**_FAST, "x264-params": f"b-adapt=0:b-pyramid=none:scenecut=0:bframes=15:{_QUICK}"}
_CHAIN = {**_FAST, "x264-params": "scenecut=0:bframes=0"}
_EXACT = {**_CHAIN, "preset": "veryfast", "qp": "0"}
_SVT = {"preset": "8", "svtav1-params": "pred-struct=1:lp=1"}
_SETTINGS = {"train": _STAR, "stream": _CHAIN, "archive": _SVT, "lossless": _EXACT}


class _Scale(NamedTuple):
    """The CRF of an encoder: where to begin, its ends and steps, and dB of PSNR that one unit costs."""

    first: float
    least: float
    most: float
    step: float
    slope: float


_SCALES = {
    "libx264": _Scale(first=21, least=1, most=45, step=0.25, slope=0.7),
    "libsvtav1": _Scale(first=36, least=2, most=63, step=1, slope=0.3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The decision how one camera is encoded, recorded with the data.

    Attributes
    ----------
    profile
        What was chosen; never ``auto``.
    video
        What a decoder has to know.
    encoder, settings
        FFmpeg's name of the encoder, and its options. For people: decoding does not need them.
    crf
        Constant rate factor; None where nothing is lost.
    reason
        For people: why this was chosen, with the figures of the trials.
    """

    profile: Profile
    video: VideoFormat
    encoder: str
    crf: float | None
    settings: Mapping[str, str]
    reason: str


# ---------------------------------------------------------------- choosing


def choose(frames: Pixels, *, profile: Profile, quality_db: float) -> Encoding:
    """Decide how to encode a camera by trying it on some of its frames.

    Parameters
    ----------
    frames
        (n, H, W, C) uint8, C 3 for RGB or 1 for grey: consecutive frames, or runs of `SLOTS` of them. No
        more than the first 64 are used.
    profile
        ``auto`` takes ``archive`` if that halves the size of ``train``.
    quality_db
        PSNR over RGB to reach on the sample, in dB.

    Raises
    ------
    ValueError
        If the profile is ``source``, which has no frames to encode, or the frames cannot be video.
    """
    _check_frames(frames)
    if profile == "source":
        raise ValueError("the profile source takes packets as they came: see gops_from_packets")
    sample = frames[:_SAMPLE]
    if profile == "lossless":
        return encoding_of(format_of(sample, "lossless"), profile, reason="asked for")
    subsampled = _subsampled_db(sample)
    pixel_format = "yuv420p" if subsampled >= quality_db + _HEADROOM_DB else "yuv444p"
    obstacle = ""
    if pixel_format == "yuv444p":
        obstacle = f"halving the resolution of colour alone leaves {subsampled:.1f} dB, so it is kept"
    elif min(sample.shape[1:3]) < _LEAST_SIDE_AV1 and profile in {"auto", "archive"}:
        obstacle = f"AV1 is not encoded below {_LEAST_SIDE_AV1} pixels"
    tried = [
        _Trial.of(sample, candidate, pixel_format, quality_db)
        for candidate in _candidates(profile, has_av1=not obstacle)
    ]
    return _settle(tried, sample, profile, quality_db, obstacle)


def _candidates(profile: Profile, *, has_av1: bool) -> list[Profile]:
    """Return the profiles to try for one that was asked for."""
    if profile == "stream":
        return ["stream"]
    if profile == "archive" and has_av1:
        return ["archive"]
    return ["train", "archive"] if profile == "auto" and has_av1 else ["train"]


def _settle(
    tried: list[_Trial], sample: Pixels, profile: Profile, quality_db: float, obstacle: str
) -> Encoding:
    """Return the best of what was tried, or lossless if nothing reached the quality."""
    figures = "; ".join([*(trial.figures for trial in tried), *([obstacle] if obstacle else [])])
    reached = [trial for trial in tried if trial.margin >= 0]
    if not reached:
        why = f"{quality_db:g} dB were not reached: {figures}"
        return encoding_of(format_of(sample, "lossless"), "lossless", reason=why)
    best = reached[0]
    if len(reached) == 2 and reached[1].size <= _ARCHIVE_GAIN * best.size:
        best = reached[1]
    asked = f"{profile} for {quality_db:g} dB"
    return replace(best.encoding, reason=f"{asked}: {figures}")


@dataclass(frozen=True, slots=True)
class _Trial:
    """A sample encoded at the greatest CRF that reaches the quality, as far as was tried.

    Attributes
    ----------
    margin
        dB above what was asked for; negative: not reached.
    size
        Bytes of the sample.
    """

    encoding: Encoding
    margin: float
    size: int
    frames: int
    psnr_db: float

    @property
    def figures(self) -> str:
        """For people: what came out."""
        rate = self.size / self.frames / 1000
        video = self.encoding.video
        return (
            f"{self.encoding.profile} ({video.codec} {video.pixel_format}, crf {self.encoding.crf:g}) "
            f"{rate:.2f} kB/frame at {self.psnr_db:.2f} dB"
        )

    @classmethod
    def of(cls, sample: Pixels, profile: Profile, pixel_format: str, quality_db: float) -> _Trial:
        """Search the CRF: PSNR falls as it rises, and at first more slowly than further on."""
        start = encoding_of(format_of(sample, profile, pixel_format), profile)
        scale = _SCALES[start.encoder]
        done: dict[float, _Trial] = {}
        while len(done) < _TRIALS and (crf := _next_crf(done, scale)) not in done:
            done[crf] = cls._at(sample, replace(start, crf=crf), quality_db)
            if 0 <= done[crf].margin <= _CLOSE_DB:
                break
        while max(trial.margin for trial in done.values()) < 0 and min(done) > scale.least:
            worst = min(done)
            crf = _clamped(worst + 1.5 * done[worst].margin / scale.slope - scale.step, scale)
            done[crf] = cls._at(sample, replace(start, crf=crf), quality_db)
        reached = [crf for crf, trial in done.items() if trial.margin >= 0]
        return done[max(reached) if reached else min(done)]

    @classmethod
    def _at(cls, sample: Pixels, encoding: Encoding, quality_db: float) -> _Trial:
        size, errors, worst = 0, [], 0.0
        for first in range(0, len(sample), SLOTS):
            run = sample[first : first + SLOTS]
            chunk = _encode(run, encoding)
            size += len(chunk)
            errors += squared_errors(run, _decoded(chunk, encoding, range(len(run)), run))
            worst = max(worst, psnr(max(errors[first + slot] for slot in _measured(len(run)))))
        mean = psnr(sum(errors) / len(errors))
        # The better run only: `encode_gop` gives more bits to the chunks that need them, and to no others.
        margin = min(mean - quality_db, worst - quality_db + _SLACK_DB)
        return cls(encoding, margin, size, len(sample), mean)


def _next_crf(done: Mapping[float, _Trial], scale: _Scale) -> float:
    """Return the CRF to try next: between two trials on either side of the goal, else beyond the nearest."""
    above = max((crf for crf, trial in done.items() if trial.margin >= 0), default=None)
    below = min((crf for crf, trial in done.items() if trial.margin < 0), default=None)
    slope = scale.slope
    if above is not None and below is not None:
        slope = (done[above].margin - done[below].margin) / (below - above)
    near = below if above is None else above
    if near is None:
        return scale.first
    # A little below the goal is nothing, a little above is a result.
    return _clamped(near + (done[near].margin - _CLOSE_DB / 3) / max(slope, scale.slope / 4), scale)


def _clamped(crf: float, scale: _Scale) -> float:
    return min(max(math.floor(crf / scale.step) * scale.step, scale.least), scale.most)


def _subsampled_db(sample: Pixels) -> float:
    """Return the PSNR of the worst of a few frames that are converted to 4:2:0 and back, and not encoded."""
    video = format_of(sample, "train")
    scaler = VideoReformatter()
    back = np.empty_like(sample[:: max(1, len(sample) // 8)])
    truth = sample[:: max(1, len(sample) // 8)]
    for frame, out in zip(truth, back, strict=True):
        write_pixels(_picture(frame, video, scaler), video, scaler, out)
    return psnr(max(squared_errors(truth, back)))


# ---------------------------------------------------------------- encoding


def encoding_of(
    video: VideoFormat, profile: Profile, *, crf: float | None = None, reason: str = ""
) -> Encoding:
    """Return the encoding of a profile without a trial.

    Parameters
    ----------
    video
        Of H.264 or AV1, as `choose` returns it for the profile.
    crf
        None: for a lossy profile that which a trial begins with.
    """
    encoder = "libsvtav1" if video.codec == "av1" else "libx264rgb" if video.matrix == "rgb" else "libx264"
    if crf is None and profile != "lossless":
        crf = _SCALES[encoder].first
    return Encoding(
        profile=profile,
        video=video,
        encoder=encoder,
        crf=crf,
        settings=dict(_SETTINGS[profile]),
        reason=reason,
    )


def encode_gop(frames: Pixels, encoding: Encoding, *, quality_db: float) -> tuple[bytes, Quality]:
    """Encode the frames of one chunk.

    Parameters
    ----------
    frames
        (n, H, W, C) uint8; n is at most the slots of the array's chunk.
    encoding
        As `choose` returned it. The same frames and encoding always give the same bytes.
    quality_db
        PSNR in dB that no measured frame falls short of by more than 0.7 dB: the CRF is lowered, for this
        chunk, until that holds or the format can do no better.

    Returns
    -------
    chunk, quality
        The bytes of the chunk, and how close at least four of its frames are to ``frames``.
    """
    _check_frames(frames)
    measured = _measured(len(frames))
    truth = frames[measured]
    for _ in range(_RETRIES):
        chunk = _encode(frames, encoding)
        quality = measure(truth, _decoded(chunk, encoding, measured, truth))
        lack = quality_db - _SLACK_DB - quality.min_psnr_db
        if encoding.crf is None or lack <= _NEAR_DB or encoding.crf <= _SCALES[encoding.encoder].least:
            break
        scale = _SCALES[encoding.encoder]
        lower = _clamped(encoding.crf - 1.2 * lack / scale.slope - scale.step, scale)
        encoding = replace(encoding, crf=lower)
    return chunk, quality


def _measured(frames: int) -> list[int]:
    """Return the slots of a chunk whose quality is measured, ascending."""
    return sorted({round(slot) for slot in np.linspace(0, frames - 1, _MEASURED)})


def _check_frames(frames: Pixels) -> None:
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[3] not in {1, 3} or not frames.size:
        raise ValueError(f"{frames.dtype} {frames.shape} is not (n, H, W, 3) or (n, H, W, 1) uint8")
    if frames.shape[1] * frames.shape[2] > MOST_PIXELS:
        raise ValueError(f"frames of {frames.shape[1:3]} are beyond the limit of {MOST_PIXELS} pixels")


def format_of(frames: Pixels, profile: Profile, pixel_format: str = "yuv420p") -> VideoFormat:
    """Return the format in which these frames are encoded. Grey is luma in full range, colour is neutral."""
    _, height, width, channels = frames.shape
    exact_colour = profile == "lossless" and channels == 3
    return VideoFormat(
        codec="av1" if profile == "archive" else "h264",
        bitstream="obu" if profile == "archive" else "annexb",
        pixel_format="gbrp" if exact_colour else "yuv420p" if channels == 1 else pixel_format,
        matrix="rgb" if exact_colour else "bt601",
        range="full" if exact_colour or channels == 1 else "limited",
        width=width + width % 2,
        height=height + height % 2,
    )


def _encode(frames: Pixels, encoding: Encoding) -> bytes:
    """Return the bytes of a chunk."""
    context = _encoder(encoding, len(frames))
    scaler = VideoReformatter()
    inspect = Inspector(encoding.video.codec)
    strip = without_sei if encoding.video.codec == "h264" else bytes
    entries = []
    for raw, pts in _packets(context, frames, encoding.video, scaler):
        data = strip(raw)
        entries.append(Entry(data, pts, *inspect(data)))
    return pack(entries, len(frames))


def _packets(
    context: VideoCodecContext, frames: Pixels, video: VideoFormat, scaler: VideoReformatter
) -> Iterator[tuple[bytes, int]]:
    """Yield the encoder's packets in decode order: their bytes, and which frame they show."""
    for index, frame in enumerate(frames):
        picture = _picture(frame, video, scaler)
        picture.pts, picture.time_base = index, context.time_base
        yield from ((bytes(packet), packet.pts or 0) for packet in context.encode(picture))
    yield from ((bytes(packet), packet.pts or 0) for packet in context.encode(None))


def _encoder(encoding: Encoding, frames: int) -> VideoCodecContext:
    """Return an encoder for one closed group of pictures."""
    # SVT-AV1 would write twenty lines to stderr for each chunk, past every logger.
    os.environ.setdefault("SVT_LOG", "0")
    video = encoding.video
    is_rgb = video.matrix == "rgb"
    context = video_context(encoding.encoder, "w")
    context.width, context.height = video.width, video.height
    context.pix_fmt = "rgb24" if is_rgb else video.pixel_format
    context.time_base, context.framerate = Fraction(1, _RATE), Fraction(_RATE)
    context.gop_size = _LOSSLESS_KEYS if encoding.profile == "lossless" else frames
    context.color_range = RANGES[video.range]
    context.colorspace = 0 if is_rgb else _SPACES[video.matrix]
    context.options = dict(encoding.settings)
    if encoding.crf is not None:
        context.options |= {"crf": f"{encoding.crf:g}"}
    if "x264-params" in encoding.settings and video.width % 128 and platform.machine() in {"x86_64", "AMD64"}:
        # With AVX-512, x264 (core 165) reads memory that it never wrote where the width is not a multiple
        # of 8 macroblocks, and its output differs from run to run. SSE 4.2 takes 7 to 13 % longer.
        context.options |= {"x264-params": f"{encoding.settings['x264-params']}:asm=SSE4.2"}
    return context


_SPACES = {"bt601": 6, "bt709": 1, "bt2020": 9}  # matrix_coefficients of ITU-T H.273


def _picture(frame: Pixels, video: VideoFormat, scaler: VideoReformatter) -> av.VideoFrame:
    """Return a frame in the encoder's pixel format; odd sides are made even by repeating the edge."""
    height, width, channels = frame.shape
    if (height, width) != (video.height, video.width):
        edges = ((0, video.height - height), (0, video.width - width), (0, 0))
        frame = np.pad(frame, edges, "edge")
    if channels == 1:
        return _grey_picture(frame, video)
    rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), "rgb24")
    if video.matrix == "rgb":
        return rgb
    return scaler.reformat(
        rgb,
        format=video.pixel_format,
        src_colorspace=MATRICES[video.matrix],
        dst_colorspace=MATRICES[video.matrix],
        src_color_range=ColorRange.JPEG,
        dst_color_range=RANGES[video.range],
        interpolation=Interpolation.AREA,
        threads=1,
    )


def _grey_picture(luma: Pixels, video: VideoFormat) -> av.VideoFrame:
    """Return a picture whose luma is the grey value and whose colour is neutral."""
    picture = av.VideoFrame(video.width, video.height, video.pixel_format)
    plane_view(picture, 0)[...] = luma
    plane_view(picture, 1)[...] = plane_view(picture, 2)[...] = 128
    picture.color_range = RANGES[video.range]
    return picture


def _decoded(chunk: bytes, encoding: Encoding, slots: Sequence[int], like: Pixels) -> Pixels:
    out = np.empty_like(like)
    decode_into(chunk, encoding.video, slots, out)
    return out
