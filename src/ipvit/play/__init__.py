"""The playground: a page on this computer that shows what two networks make of one photo, whatever is done to it."""

from ipvit.play.photos import Shelf
from ipvit.play.playground import Playground
from ipvit.play.server import PlayServer

__all__ = ["PlayServer", "Playground", "Shelf"]
