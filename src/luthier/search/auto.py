"""The default: picks by the space and the number of trials."""

from luthier.search.random import Random as Auto

METHOD = Auto
