"""Imports what takes seconds, for processes that are forked from the one that has; none of it starts a thread."""

import gc

import altair
import cv2
import polars
import timm
import vl_convert

import ipvit.api
import ipvit.cli
import ipvit.commands.measure
import ipvit.results
import ipvit.training.start
from ipvit.experiments.registry import BUILT_IN, make_experiment

__all__ = ["altair", "cv2", "ipvit", "polars", "timm", "vl_convert"]

for name in BUILT_IN:
    make_experiment(name, {}).analysis()

gc.collect()
gc.freeze()  # a collection in a fork would write to every object, so that the system copies them all
