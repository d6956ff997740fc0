"""An Episode as a Rerun recording: packets as they are, each stream at the times of its own clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..schemas import Array, Episode, Stream, StreamSpec
from .calibration import intrinsics, pose
from .plan import (
    ANOMALY,
    METRES,
    Camera,
    Curve,
    Namer,
    Plot,
    Recorded,
    RecordOptions,
    events_of,
    planned,
)
from .rerun import rr, saved
from .timing import Timing, lane
from .video import Spool, jpeg, jpegs, spooled

Extend = Callable[[Episode, rr.RecordingStream, Recorded, RecordOptions], Recorded]
"""Adds to what is recorded, such as a robot, and returns what is then there to be laid out."""

_BATCH = 16 << 20  # bytes of numbers that go to the recording at once
_THUMBNAIL = (160, 120)
_FRUSTUM = 0.2  # metres from a camera to where its picture is drawn
_HUES = (
    (230, 77, 77),
    (240, 160, 50),
    (120, 200, 70),
    (50, 190, 170),
    (70, 140, 240),
    (160, 110, 240),
    (225, 95, 190),
    (170, 170, 170),
)
_CODECS = {
    "h264": rr.VideoCodec.H264,
    "hevc": rr.VideoCodec.H265,
    "av1": rr.VideoCodec.AV1,
    "vp9": rr.VideoCodec.VP9,
}
_FILMED = {"h264", "hevc"}  # codecs that may decode in another order than they show


def application_of(episode: Episode) -> str:
    """Return an episode's application id: those of one robot and of the same streams share a layout."""
    shape = [(s.spec.name, s.spec.kind, s.spec.axes) for s in episode.streams.values()]
    told = repr((episode.embodiment, shape)).encode()
    return f"teleopen-{hashlib.sha256(told).hexdigest()[:16]}"


def write(
    episode: Episode, path: Path, options: RecordOptions | None = None, *, extend: Extend | None = None
) -> Recorded:
    """Write an episode and its layout as one .rrd file; a file that is there is replaced.

    Memory is a block of a stream or one MP4 of some 64 MB, whatever the episode's length.

    Parameters
    ----------
    episode
        From a converter or from a store alike.
    extend
        Adds what is no part of the episode, before its streams.

    Raises
    ------
    StoreError
        If the file cannot be written.
    TeleopenError
        If the episode cannot be read.
    """
    from .layout import blueprint

    options = options or RecordOptions()
    recorder = Recorder(episode, options)
    with saved(path, application_of(episode), episode.id) as sink:
        if extend is not None:
            recorder.plan = extend(episode, sink, recorder.plan, options)
        # First, since a viewer shows what it has while it loads.
        sink.send_blueprint(blueprint(recorder.plan))
        recorder.record(sink)
    return recorder.plan


def record(episode: Episode, sink: rr.RecordingStream, options: RecordOptions | None = None) -> Recorded:
    """Log an episode into a recording, such as `teleopen.viewer.rerun.saved` gives; return what went where.

    Raises
    ------
    TeleopenError
        If the episode cannot be read.
    """
    recorder = Recorder(episode, options or RecordOptions())
    recorder.record(sink)
    return recorder.plan


class Recorder:
    """Logs one episode, a kind of stream after the other."""

    def __init__(self, episode: Episode, options: RecordOptions) -> None:
        self.episode, self.options = episode, options
        self.timing = Timing(episode, options.timelines)
        self.plan = planned(episode, self.timing, options)
        self._words = Namer(options).words

    def record(self, sink: rr.RecordingStream) -> None:
        """Log it all."""
        self._card(sink)
        self._events(sink)
        for plot in self.plan.plots:
            self._plot(sink, plot)
        for curve in self.plan.tensors:
            self._tensor(sink, curve)
        for camera in self.plan.cameras:
            self._camera(sink, camera)

    # What it is

    def _card(self, sink: rr.RecordingStream) -> None:
        card, prefix = self.plan.card, self.plan.prefix
        text = rr.TextDocument(card.markdown(self._words), media_type=rr.MediaType.MARKDOWN)
        sink.log(self.plan.info, text, static=True)
        properties = rr.AnyValues(drop_untyped_nones=True, **card.properties(self._words))
        sink.send_property(f"episode_{prefix}" if prefix else "episode", properties)
        if not prefix:
            sink.send_recording_name(self.plan.title)

    def _events(self, sink: rr.RecordingStream) -> None:
        import pyarrow as pa

        events = events_of(self.episode, self.options)
        for kind, path in self.plan.lanes.items():
            own = [event for event in events if event.kind == kind]
            times, states = lane(own, self.timing.step_ns)
            # An Arrow array, since only such a one may have gaps: null is where nothing holds.
            told = pa.array([None if text is None else self._words(text) for text in states], pa.string())
            sink.send_columns(path, self.timing.at(times), rr.StateChange.columns(state=told))
        if events:
            starts = np.array([event.start_ns for event in events], np.int64)
            texts = [self._words(": ".join(filter(None, (event.kind, event.text)))) for event in events]
            levels = ["WARN" if event.kind.startswith(ANOMALY) else "INFO" for event in events]
            columns = rr.TextLog.columns(text=texts, level=levels)
            sink.send_columns(self.plan.log, self.timing.at(starts), columns)

    # Numbers

    def _plot(self, sink: rr.RecordingStream, plot: Plot) -> None:
        for of_stream in zip(*plot.axes, strict=True):
            for index, curve in enumerate(of_stream):
                sink.log(curve.path, self._style(curve, index), static=True)
            stream = self.episode.streams[of_stream[0].stream]
            for first, values in _batches(stream):
                at = self.timing.of_clock(stream.spec.clock, first, first + len(values))
                columns = values.reshape(len(values), -1).astype(np.float64)
                for index, curve in enumerate(of_stream):
                    sink.send_columns(curve.path, at, rr.Scalars.columns(scalars=columns[:, index]))

    def _style(self, curve: Curve, index: int) -> rr.SeriesLines:
        """Return how a curve looks: what was commanded is thin and pale beside what was observed."""
        hue = self.options.hue or _HUES[index % len(_HUES)]
        name = f"{self.plan.prefix}: {curve.name}" if self.plan.prefix else curve.name
        told = f"{name} ({curve.unit})" if curve.unit else name
        if not curve.commanded:
            return rr.SeriesLines(names=told, colors=hue, widths=2.0)
        return rr.SeriesLines(names=f"{told} commanded", colors=[(c + 255) // 2 for c in hue], widths=1.0)

    def _tensor(self, sink: rr.RecordingStream, curve: Curve) -> None:
        """Log what has too many numbers for curves, such as tactile arrays, as pictures of numbers."""
        import pyarrow as pa

        stream = self.episode.streams[curve.stream]
        for first, values in _batches(stream):
            at = self.timing.of_clock(stream.spec.clock, first, first + len(values))
            planes = values if values.ndim > 2 else values[:, None, :]
            # Columns of tensors are made of Arrow arrays: Rerun has no call for more than one.
            batches = [rr.components.TensorDataBatch(rr.encodings.TensorData(array=one)) for one in planes]
            data = pa.concat_arrays([batch.as_arrow_array() for batch in batches])
            sink.send_columns(curve.path, at, rr.Tensor.columns(data=data))

    # Cameras

    def _camera(self, sink: rr.RecordingStream, camera: Camera) -> None:
        stream = self.episode.streams[camera.stream]
        if camera.placed:
            _place(sink, camera, stream.spec)
        if camera.kind == "depth":
            self._depth(sink, stream, camera.path)
            return
        if self.options.thumbnails:
            path = Namer(self.options)("thumbnail", camera.name)
            sink.log(path, _thumbnail(stream), static=True)
        with spooled(stream) as spool:
            if spool is not None and spool.is_in_order(stream.length):
                self._packets(sink, stream, camera.path, spool)
                return
            films = spool.films(stream.length) if spool and spool.video.codec in _FILMED else None
            if spool is not None and films is not None:
                self._films(sink, stream, camera.path, spool, films)
                return
        self._jpegs(sink, stream, camera.path)

    def _packets(self, sink: rr.RecordingStream, stream: Stream, path: str, spool: Spool) -> None:
        sink.log(path, rr.VideoStream(codec=_CODECS[spool.video.codec]), static=True)
        for first, data in spool.batches():
            at = self.timing.of_clock(stream.spec.clock, first, first + len(data))
            sink.send_columns(path, at, rr.VideoStream.columns(sample=data))

    def _films(
        self, sink: rr.RecordingStream, stream: Stream, path: str, spool: Spool, parts: list[range]
    ) -> None:
        for number, part in enumerate(parts):
            film = spool.film(part, stream.length)
            asset = rr.AssetVideo(contents=film.data, media_type="video/mp4")
            home = f"{path}/film_{number}"
            sink.log(home, asset, static=True)
            shown = asset.read_frame_timestamps_nanos()[film.before : film.before + film.count]
            at = self.timing.of_clock(stream.spec.clock, film.first, film.first + film.count)
            times = [rr.components.VideoTimestamp(nanoseconds=int(time)) for time in shown]
            columns = rr.VideoFrameReference.columns(timestamp=times, video_reference=[home] * len(times))
            sink.send_columns(path, at, columns)

    def _jpegs(self, sink: rr.RecordingStream, stream: Stream, path: str) -> None:
        sink.log(path, rr.EncodedImage.from_fields(media_type="image/jpeg"), static=True)
        first = 0
        for pictures in jpegs(stream):
            at = self.timing.of_clock(stream.spec.clock, first, first + len(pictures))
            sink.send_columns(path, at, rr.EncodedImage.columns(blob=list(pictures)))
            first += len(pictures)

    def _depth(self, sink: rr.RecordingStream, stream: Stream, path: str) -> None:
        spec = stream.spec
        height, width = spec.shape
        kind = rr.ChannelDatatype.U16 if spec.np_dtype.kind == "u" else rr.ChannelDatatype.F32
        form = rr.encodings.ImageFormat(
            width=width, height=height, color_model=rr.ColorModel.L, channel_datatype=kind
        )
        sink.log(path, rr.DepthImage.from_fields(format=form, meter=METRES.get(spec.unit[0])), static=True)
        first = 0
        for block in stream:
            at = self.timing.of_clock(spec.clock, first, first + len(block))
            frames = np.ascontiguousarray(block).reshape(len(block), -1).view(np.uint8)
            sink.send_columns(path, at, rr.DepthImage.columns(buffer=list(frames)))
            first += len(block)


def _place(sink: rr.RecordingStream, camera: Camera, spec: StreamSpec) -> None:
    """Put a camera into the world."""
    matrix, stand = intrinsics(spec), pose(spec.attributes)
    if matrix is None or stand is None:
        return
    axes = {"RDF": rr.ViewCoordinates.RDF, "RUB": rr.ViewCoordinates.RUB}[stand.axes]
    pinhole = rr.Pinhole(
        image_from_camera=matrix,
        resolution=[spec.shape[1], spec.shape[0]],
        camera_xyz=axes,
        image_plane_distance=_FRUSTUM,
    )
    where = rr.Transform3D(translation=stand.translation, mat3x3=stand.rotation)
    sink.log(camera.home, where, static=True)
    sink.log(camera.path, pinhole, static=True)


def _thumbnail(stream: Stream) -> rr.EncodedImage:
    middle = stream.length // 2
    frame = stream.values(middle, middle + 1)[0]
    return rr.EncodedImage(contents=jpeg(frame, _THUMBNAIL), media_type="image/jpeg")


def _batches(stream: Stream) -> Iterator[tuple[int, Array]]:
    """Yield a stream in runs that are worth a call: the number of the first sample, and the samples."""
    first, held, size = 0, list[Array](), 0
    for block in stream:
        held.append(block)
        size += block.nbytes
        if size >= _BATCH:
            yield first, np.concatenate(held)
            first, held, size = first + sum(map(len, held)), [], 0
    if held:
        yield first, np.concatenate(held)
