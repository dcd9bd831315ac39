"""Configurations that serving engines refuse at start-up, by version, so that every plan can start."""

from energylens.planner.engines.layouts import refusals, too_long
from energylens.planner.engines.settings import EngineSettings, SettingError
from energylens.planner.engines.versions import PROVED, tagged_version, version_of

__all__ = ["PROVED", "EngineSettings", "SettingError", "refusals", "tagged_version", "too_long", "version_of"]
