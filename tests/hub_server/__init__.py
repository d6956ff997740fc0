"""A Hub on this machine, for the real client: see `hub_server`."""

from .faults import Fault
from .hub import Hub, User
from .record import Received
from .server import hub_server

__all__ = ["Fault", "Hub", "Received", "User", "hub_server"]
