"""Trains a small behaviour-cloning policy on a store, on a CPU, and draws its loss.

    teleopen demo
    python docs/examples/behaviour_cloning.py teleopen-demo/store

The policy sees one picture of each camera and the state, and gives the next actions as one chunk. It is
small on purpose: what matters here is how data gets into it. Needs the extra ``torch``; the plot needs
matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from teleopen.hub.train import Blocks, Want, open_dataset
from teleopen.hub.train.torch import TorchLoader
from torch import nn

PICTURE = (96, 128)
CHUNK = 8


class Policy(nn.Module):
    """Pictures (B, cameras, 3, H, W) and states (B, S) to normalised actions (B, CHUNK, A)."""

    def __init__(self, cameras: int, states: int, actions: int) -> None:
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(3, 16, 5, 4), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2),
            nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.act = nn.Sequential(
            nn.Linear(cameras * 512 + states, 256), nn.ReLU(), nn.Linear(256, CHUNK * actions)
        )

    def forward(self, pictures: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return the actions."""
        seen = self.see(pictures.flatten(0, 1)).view(len(states), -1)
        return self.act(torch.cat([seen, states], 1)).view(len(states), CHUNK, -1)


def train(store: str, epochs: int, batch_size: int = 16) -> list[float]:
    """Train, and return the loss of each batch."""
    torch.manual_seed(0)
    dataset = open_dataset(store)
    cameras = [n for n, s in dataset.episode(0).streams.items() if s.spec.kind == "video"]
    windows = dataset.windows(
        {
            "action": range(CHUNK),
            "observation.state": [0],
            **{camera: Want(steps=(0,), size=PICTURE) for camera in cameras},
        }
    )
    told = {name: dataset.statistics(name) for name in ("action", "observation.state")}

    def normal(batch: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        mean, std = (torch.tensor(v, dtype=torch.float32) for v in (told[name].mean, told[name].std))
        return (batch[name] - mean) / (std + 1e-6)

    states, actions = (len(told[name].mean) for name in ("observation.state", "action"))
    policy = Policy(len(cameras), states, actions)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    loader = TorchLoader(windows.loader(batch_size, Blocks(windows=4, buffer=batch_size // 4)))
    losses = []
    for _ in range(epochs):
        for batch in loader:
            pictures = torch.stack([batch[camera][:, 0] for camera in cameras], 1) / 255.0
            guess = policy(pictures, normal(batch, "observation.state")[:, 0])
            # Beyond the end of the episode there is nothing to imitate.
            inside = ~batch["action.pad"]
            loss = ((guess - normal(batch, "action")) ** 2).mean(-1)[inside].mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses


def draw(losses: list[float], path: Path) -> None:
    """Draw the loss of each batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(losses, linewidth=1)
    axes.set_xlabel("batch")
    axes.set_ylabel("mean squared error, normalised")
    axes.set_title("Behaviour cloning on the bundled recording")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("store")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--plot", type=Path, default=Path("loss.png"))
    args = parser.parse_args()
    found = train(args.store, args.epochs)
    print(f"{len(found)} batches: loss {found[0]:.3f} at first, {found[-1]:.3f} at last")
    draw(found, args.plot)
