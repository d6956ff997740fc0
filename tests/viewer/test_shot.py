"""What is on screen is what was asked for: the very frame, whatever the codec, drawn without a display."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from PIL import Image
from teleopen.hub import WriteOptions, create_store
from teleopen.schemas import Clock, Episode, MissingExtraError, NotFoundError, Times, nominal_times

from tests.viewer import numbered
from tests.viewer.conftest import need
from tests.viewer.numbered import SECOND

pytest.importorskip("rerun", reason="the extra `viewer` is not installed")

from teleopen.cli.main import main
from teleopen.viewer import screen as screens
from teleopen.viewer import shot as shots
from teleopen.viewer.plan import Camera, RecordOptions
from teleopen.viewer.process import LOOPBACK
from teleopen.viewer.record import write
from teleopen.viewer.screen import is_drawn, is_somewhere
from teleopen.viewer.shot import shot
from teleopen.viewer.timing import EPISODE_TIME, FRAME, At

if TYPE_CHECKING:
    from teleopen.viewer.screen import Viewer

SEEKS = (40, 3, 69, 0, 35, 34, 33, 47, 31, 32, 63, 64, 1, 50)
"""Forward and back, within groups of pictures and over their ends, the first and the last."""
PATIENCE = 30.0


def stored(episode: Episode, folder: Path, profile: str) -> Episode:
    store = create_store(folder / "store")
    store.write([episode], WriteOptions(profile=profile))  # type: ignore[arg-type]  # a parameter of the test
    return store.episode(episode.id)


def made(profile: str, folder: Path) -> Episode:
    """Return the numbered frames as a store of this profile gives them."""
    if profile == "source":
        return stored(numbered.encoded(), folder, "train")
    if profile == "straight from a source":
        return numbered.encoded()
    return stored(numbered.episode(), folder, profile)


def shown_at(viewer: Viewer, path: Path, frames: tuple[int, ...]) -> list[int | None]:
    """Return the numbers that are on screen after going to each of the frames."""
    episode = numbered.episode()
    recorded = write(episode, path.with_suffix(".none.rrd"), RecordOptions())
    viewer.show(path)
    found = []
    for frame in frames:
        viewer.set_time(FRAME, frame, 0)
        found.append(seen_in_time(viewer, recorded.cameras[0], frame))
    return found


def seen_in_time(viewer: Viewer, camera: Camera, wanted: int) -> int | None:
    """Return the number that a camera's view comes to show: the wanted one, or that which stays instead."""
    end = time.monotonic() + PATIENCE
    number = None
    while number != wanted and time.monotonic() < end:
        number = numbered.number_on(viewer.seen(viewer.view(camera)))
    return number


@pytest.mark.slow
@pytest.mark.parametrize(
    "profile", ["train", "stream", "archive", "lossless", "source", "straight from a source"]
)
def test_each_frame_that_is_sought_is_the_one_that_is_shown(
    profile: str, native: Viewer, tmp_path: Path
) -> None:
    episode = replace(made(profile, tmp_path), events=())
    only = {numbered.CAMERA: episode.streams[numbered.CAMERA]}
    path = tmp_path / "episode.rrd"
    write(replace(episode, streams=only), path, RecordOptions(ascii=True, thumbnails=False))
    try:
        assert shown_at(native, path, SEEKS) == list(SEEKS)
    finally:
        native.client.close("all")


def with_a_faster_camera(profile: str, folder: Path) -> tuple[Episode, Times]:
    """Return an episode of two cameras at 30 Hz and one at 60 Hz, some of whose pictures have equal times."""
    episode = numbered.episode(70)
    camera = episode.streams[numbered.CAMERA]
    times = np.arange(70) * (SECOND // 60)
    times[21], times[31], times[32] = times[20], times[30], times[30]
    fast = replace(camera, spec=replace(camera.spec, name="observation.images.fast", clock="fast"))
    slow = [
        replace(camera, length=35, spec=replace(camera.spec, name=f"observation.images.slow_{n}"))
        for n in "12"
    ]
    clocks = {
        "fast": Clock(name="fast", kind="recorded", measured_hz=60.0, length=70, read=lambda: times),
        "steps": replace(episode.clocks["steps"], length=35, read=lambda: nominal_times(35, 30)),
    }
    streams = {stream.spec.name: stream for stream in (fast, *slow)}
    episode = replace(episode, clocks=clocks, streams=streams, events=())
    return stored(episode, folder, profile), times


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["train", "stream", "archive"])
def test_of_pictures_of_one_time_the_last_is_shown_and_no_other_is_moved(
    profile: str, native: Viewer, tmp_path: Path
) -> None:
    episode, times = with_a_faster_camera(profile, tmp_path)
    recorded = write(episode, tmp_path / "episode.rrd", RecordOptions(ascii=True, thumbnails=False))
    assert recorded.timeline == EPISODE_TIME
    (camera,) = (camera for camera in recorded.cameras if camera.name == "fast")
    native.show(tmp_path / "episode.rrd")
    sought, last = (5, 20, 19, 21, 22, 30, 32, 33, 29, 60, 0, 40, 10), {20: 21, 30: 32}
    try:
        for index in sought:
            native.set_time(EPISODE_TIME, 0, int(times[index]))
            wanted = last.get(index, index)
            assert seen_in_time(native, camera, wanted) == wanted
    finally:
        native.client.close("all")


@pytest.mark.slow
def test_a_picture_of_the_viewer_shows_the_cameras_and_listens_to_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("native")
    heard: set[str] = set()
    connections: set[str] = set()
    numbers: dict[str, int | None] = {}
    photographed = shots._photographed

    def watched(viewer: Viewer, scene: Any) -> list[bytes]:
        pictures = photographed(viewer, scene)
        for one in psutil.Process(viewer.program.process.pid).net_connections():
            heard.add(one.laddr.ip) if one.status == psutil.CONN_LISTEN else None
            connections.add(one.raddr.ip) if one.raddr else None
        for camera in scene.recorded.cameras:
            numbers[camera.name] = numbered.number_on(viewer.seen(viewer.view(camera)))
        assert not [report for view in viewer.client.get_state().views for report in view.reports]
        return pictures

    monkeypatch.setattr(shots, "_photographed", watched)
    episode = numbered.episode(30)
    top = episode.streams[numbered.CAMERA]
    wrist = replace(
        top,
        spec=replace(top.spec, name="observation.images.wrist"),
        read=lambda start, stop: iter([numbered.frames(start + 100, stop + 100)]),
    )
    episode = replace(episode, streams={**episode.streams, wrist.spec.name: wrist})
    taken = shot(episode, tmp_path / "out.png", At(frame=20), backend="native")
    assert (taken.frame, taken.backend, taken.width, taken.height) == (20, "native", 1600, 900)
    assert heard == {LOOPBACK}
    assert connections <= {LOOPBACK}
    assert numbers == {"top": 20, "wrist": 120}
    with Image.open(tmp_path / "out.png") as image:
        screen = np.asarray(image.convert("RGB"), np.float64).mean(-1)
    for number in (20, 120):
        assert is_somewhere(screen, numbered.frames(number, number + 1)[0].astype(float).mean(-1))


@pytest.mark.slow
def test_texts_without_glyphs_do_not_kill_the_viewer_without_a_window(tmp_path: Path) -> None:
    need("native")
    episode = numbered.episode(8, instructions=("把杯子放到左边 🤖", "ɐ ﷽"), embodiment="机器人")
    assert shot(episode, tmp_path / "out.png", backend="native").backend == "native"


@pytest.mark.slow
def test_a_window_without_a_screen_shows_a_time_between_frames(tmp_path: Path) -> None:
    need("xvfb")
    taken = shot(numbered.episode(40), tmp_path / "out.png", At(seconds=0.51), backend="xvfb")
    assert (taken.backend, taken.frame) == ("xvfb", 15)


@pytest.mark.slow
def test_the_web_viewer_shows_the_frame_that_its_link_names(tmp_path: Path) -> None:
    need("chromium")
    episode = numbered.encoded(40)
    taken = shot(episode, tmp_path / "out.png", At(frame=21), backend="chromium")
    assert (taken.backend, taken.frame) == ("chromium", 21)
    with Image.open(tmp_path / "out.png") as image:
        screen = np.asarray(image.convert("RGB"), np.float64).mean(-1)
    assert is_somewhere(screen, numbered.frames(21, 22)[0].astype(float).mean(-1))
    assert not is_somewhere(screen, numbered.frames(10, 11)[0].astype(float).mean(-1))


def test_a_tiny_episode_is_drawn_and_said_to_be_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("native")
    monkeypatch.setattr(screens, "NOTES", 0.0)
    store = create_store(tmp_path / "store")
    store.write([numbered.episode(6)], WriteOptions(profile="archive"))
    words = ["shot", f"{tmp_path}/store#0", str(tmp_path / "out.png"), "--at", "0.1s", "--backend", "native"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["frame"], told["backend"]) == (3, "native")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (told["width"], told["height"])
        screen = np.asarray(image.convert("RGB"), np.float64).mean(-1)
    assert is_somewhere(screen, numbered.frames(3, 4)[0].astype(float).mean(-1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.webp", "out.gif"])
def test_a_moving_picture_shows_the_frames_from_the_first_to_the_last(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("native")
    monkeypatch.setattr(screens, "NOTES", 0.0)
    taken: list[tuple[int | None, Any]] = []
    picture = screens.Viewer.picture

    def watched(viewer: Viewer) -> bytes:
        found = picture(viewer)
        (view,) = [view for view in viewer.client.get_state().views if view.name == "top"]
        with Image.open(io.BytesIO(found)) as image:
            taken.append((numbered.number_on(viewer.seen(view)), levels(image)))
        return found

    monkeypatch.setattr(screens.Viewer, "picture", watched)
    store = create_store(tmp_path / "store")
    store.write([numbered.episode(70)], WriteOptions(profile="train"))
    file = tmp_path / name
    words = ["shot", f"{tmp_path}/store#0", str(file), "--frames", "4", "--backend", "native", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["frames"], told["seconds"], told["width"]) == ([0, 23, 46, 69], 1.0, 800)
    assert [number for number, _ in taken] == told["frames"]
    with Image.open(file) as image:
        assert image.size == (told["width"], told["height"])
        assert getattr(image, "n_frames", 1) == 4
        for at in range(4):
            image.seek(at)
            away = [np.abs(levels(image) - other).mean() for _, other in taken]
            assert np.argmin(away) == at
            assert away[at] < min(away[:at] + away[at + 1 :]) / 2


def levels(image: Image.Image) -> Any:
    """Return a picture of any size as a small one in grey: (90, 160)."""
    return np.asarray(image.convert("L").resize((160, 90), Image.Resampling.BOX), np.float64)


def test_a_picture_is_still_or_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_store(tmp_path / "store").write([numbered.episode(6)], WriteOptions(profile="archive"))
    place = f"{tmp_path}/store#0"
    assert main(["shot", place, str(tmp_path / "out.gif"), "--at", "3"]) == 2
    assert main(["shot", place, str(tmp_path / "out.png"), "--frames", "3"]) == 2
    assert ".webp or .gif" in capsys.readouterr().err
    assert not list(tmp_path.glob("out.*"))


def test_a_frame_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shots, "missing", lambda backend: [])
    with pytest.raises(NotFoundError, match="has no frame 6"):
        shot(numbered.episode(6), tmp_path / "out.png", At(frame=6), backend="native")


def test_without_any_backend_one_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shots, "missing", lambda backend: ["everything"])
    with pytest.raises(MissingExtraError) as caught:
        shot(numbered.episode(6), tmp_path / "out.png")
    for packages in ("mesa-vulkan-drivers", "xvfb", "chromium"):
        assert packages in str(caught.value)
    assert not (tmp_path / "out.png").exists()


def test_where_texts_need_fonts_a_backend_that_has_some_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def none(backend: str) -> list[str]:
        asked.append(backend)
        return ["everything"]

    monkeypatch.setattr(shots, "missing", none)
    for task, order in (("Pour", ["native", "xvfb", "chromium"]), ("倒水", ["xvfb", "chromium", "native"])):
        asked.clear()
        with pytest.raises(MissingExtraError):
            shot(numbered.episode(6, instructions=(task,)), tmp_path / "out.png")
        assert asked == order


@pytest.mark.parametrize("height", [200, 437])
def test_a_view_is_compared_with_the_frame_that_it_should_show(height: int) -> None:
    frames = [numbered.frames(i, i + 1)[0].astype(float).mean(-1) for i in (21, 22, 90)]
    screen = np.full((height, 300), 13.0)
    scaled = Image.fromarray(frames[0].astype(np.uint8)).resize((300, 150))
    top = (height - 150) // 2
    screen[top : top + 150] = np.asarray(scaled)
    assert is_drawn(screen, frames[0])
    assert not is_drawn(screen, frames[2])
    assert not is_drawn(np.full((height, 300), 13.0), frames[0])
    assert is_drawn(np.zeros((height, 300)), np.zeros((96, 192)))


def test_without_the_extra_the_advice_is_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['rerun'] = None\n"
        "from teleopen.cli.main import main\n"
        f"sys.exit(main(['shot', {str(tmp_path / 'no-store')!r}, 'out.png']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'teleopen[viewer]'" in done.stderr
    assert "Traceback" not in done.stderr
