"""Moving pictures for tests: made here, so that they are small and their truth is known."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray
from teleopen.hub.decode import write_pixels
from teleopen.schemas import Packet, VideoFormat

Pixels = NDArray[np.uint8]


def clip(
    frames: int,
    height: int,
    width: int,
    channels: int = 3,
    *,
    noise: float = 3.0,
    seed: int = 0,
    cut: int = 0,
) -> Pixels:
    """Return a texture that drifts under sensor noise: (n, H, W, C). At ``cut`` another scene begins."""
    rng = np.random.default_rng(seed)
    scenes = [_texture(rng, height, width, channels) for _ in range(2)]
    out = np.empty((frames, height, width, channels), np.uint8)
    for index in range(frames):
        drift = round(6 * np.sin(index / 9)), round(8 * np.cos(index / 13))
        still = np.roll(scenes[bool(cut) and index >= cut], drift, (0, 1))
        out[index] = np.clip(still + rng.normal(0, noise, (height, width, 1)), 0, 255)
    return out


def _texture(rng: np.random.Generator, height: int, width: int, channels: int) -> NDArray[np.float64]:
    """Return grey detail with a soft tint, as cameras see rooms."""
    detail = rng.normal(0, 1, (height, width))
    for axis in (0, 1):
        detail = np.mean([np.roll(detail, shift, axis) for shift in range(-2, 3)], 0)
    y, x = np.mgrid[0:height, 0:width]
    tint = [np.sin(x / 31 + phase) * np.cos(y / 23 - phase) for phase in range(channels)]
    texture: NDArray[np.float64] = 120 + 130 * detail[..., None] + 25 * np.stack(tint, -1)
    return texture


def stream(
    frames: Pixels,
    encoder: str,
    options: Mapping[str, str],
    *,
    gop: int = 250,
    pixel_format: str = "yuv420p",
    matrix: Literal["bt601", "bt709"] = "bt601",
) -> tuple[list[Packet], VideoFormat]:
    """Return the packets of a source that somebody else encoded, as a container would give them."""
    context = cast("VideoCodecContext", av.CodecContext.create(encoder, "w"))
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt, context.gop_size, context.thread_count = pixel_format, gop, 1
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.options = dict(options)
    packets = []
    for index, frame in enumerate([*frames, None]):
        picture = None
        if frame is not None:
            picture = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format=pixel_format)
            picture.pts = index
        for packet in context.encode(picture):
            assert packet.pts is not None
            packets.append(Packet(bytes(packet), packet.pts, packet.is_keyframe))
    codec = cast("Any", {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9"}.get(encoder, "av1"))
    video = VideoFormat(
        codec=codec,
        bitstream="annexb" if codec in {"h264", "hevc"} else "frames" if codec == "vp9" else "obu",
        pixel_format=pixel_format,
        matrix=matrix,
        range="limited",
        width=context.width,
        height=context.height,
    )
    return packets, video


def in_sequence(packets: Iterable[Packet], video: VideoFormat) -> dict[int, Pixels]:
    """Return every picture of a stream by its pts, from one decoder that is fed all packets in order."""
    name = {"av1": "libdav1d"}.get(video.codec, video.codec)
    context = cast("VideoCodecContext", av.CodecContext.create(name, "r"))
    context.thread_count = 1
    scaler = av.video.reformatter.VideoReformatter()
    found = {}
    for packet in [*packets, None]:
        one = None
        if packet is not None:
            one = av.Packet(packet.data)
            one.pts = packet.pts
        for frame in context.decode(one):
            assert frame.pts is not None
            found[frame.pts] = np.empty((video.height, video.width, 3), np.uint8)
            write_pixels(frame, video, scaler, found[frame.pts])
    return found
