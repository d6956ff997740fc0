"""The sample that loaders are compared by: a window of the recording, and how many of them are drawn.

Contenders read this in environments of their own, so it imports nothing.
"""

CAMERAS = ("cam_high", "cam_left_wrist")
IMAGES = tuple(f"observation.images.{camera}" for camera in CAMERAS)
STATE, ACTION = "observation.state", "action"
FPS = 30

EPISODES, STEPS = 20, 96
BATCH = 16

PAST = (-1, 0)
"""Steps of the pictures and of the states, from the one that a window is named by."""
ACTIONS = range(16)

PICTURES = EPISODES * STEPS * len(CAMERAS)


def seconds() -> dict[str, list[float]]:
    """Return the window as LeRobot wants it told: ``delta_timestamps``."""
    past = [step / FPS for step in PAST]
    return {**dict.fromkeys(IMAGES, past), STATE: past, ACTION: [step / FPS for step in ACTIONS]}


def past(at: int) -> tuple[int, int]:
    """Return the two frames of the window at a frame: an episode's first stands in for the one before it."""
    return at - (at % STEPS > 0), at
