"""One function a section: a Bench in, a Section out. `full` asks for the long form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench
from benchmarks.sections.ablation import ablation
from benchmarks.sections.batch import batch
from benchmarks.sections.failures import faults, kills, outage, quota
from benchmarks.sections.limits import promises, utilisation
from benchmarks.sections.many import scale
from benchmarks.sections.media import media
from benchmarks.sections.night import budget, edit, hanging, stragglers
from benchmarks.sections.size import memory, resume
from benchmarks.sections.speed import startup, throughput
from benchmarks.sections.tuning import auto, learned, shared
from benchmarks.tables import Section

SECTIONS: Mapping[str, Callable[[Bench, bool], Section]] = {
    "throughput": throughput,
    "memory": memory,
    "utilisation": utilisation,
    "promises": promises,
    "outage": outage,
    "faults": faults,
    "kills": kills,
    "quota": quota,
    "resume": resume,
    "learned": learned,
    "auto": auto,
    "shared": shared,
    "stragglers": stragglers,
    "budget": budget,
    "edit": edit,
    "hanging": hanging,
    "batch": batch,
    "media": media,
    "startup": startup,
    "scale": scale,
    "ablation": ablation,
}
__all__ = ["SECTIONS"]
