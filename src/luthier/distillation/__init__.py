"""Distillation: losses, the teacher's cached outputs, and the verb."""

from luthier.distillation.disk import Cache
from luthier.distillation.lesson import Fade
from luthier.distillation.student import distill

__all__ = ["Cache", "Fade", "distill"]
