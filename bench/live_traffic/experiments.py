"""One run of one rule, and the grid of runs that the tables are made of. Values in, values out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from bench.live_traffic import rivals, workloads
from bench.live_traffic.gateway import Gateway, Rule
from bench.live_traffic.ours import Ours
from bench.live_traffic.recorder import Recorder
from lowtide.engine_sim.benchmarks.bound import Demand, batch_bound, demand_of, makespan_bound
from lowtide.engine_sim.benchmarks.virtual import VirtualWorld
from lowtide.engine_sim.engine import STEP_NOISE, SimEngine
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig, step_bound_config
from lowtide.engine_sim.scheduling.step_budget import TOLERANCE
from lowtide.engine_sim.state.requests import SimRequest

DAY_S: Final = 1_800.0
"""A simulated day is half an hour: what matters is that load changes slowly against a call."""
LONG_DAY_S: Final = 7_200.0
"""The same for calls that live a minute."""
BATCH_PRIORITY: Final = 100
SETUPS: Final = {
    "stock": SchedulerConfig(),
    "recommended": SchedulerConfig(
        scheduling_policy="priority", max_num_batched_tokens=2048, max_num_seqs=512
    ),
    "smooth": SchedulerConfig(
        scheduling_policy="priority", max_num_batched_tokens=1024, max_num_seqs=512
    ),
    "scheduler class": step_bound_config(),
    **{
        f"tolerance {tolerance}": step_bound_config(tolerance=tolerance)
        for tolerance in (1.5, 1.6, 1.9, 2.5, 4.0, 6.0)
    },
    **{
        f"steps of {tokens:,}, {tolerance}": step_bound_config(
            max_num_seqs=512, max_num_batched_tokens=tokens, tolerance=tolerance
        )
        for tokens, tolerance in (
            (1024, TOLERANCE),
            (1536, TOLERANCE),
            (1536, 3.5),
            (1536, 4.0),
            (2048, 4.0),
            (2048, 6.0),
        )
    },
}
"""Engine flags: vLLM's defaults on an H100; the two that docs/live-traffic.md tells to set where
there is no scheduler class; and the class, as it is, with other tolerances, and with smaller steps
as well."""
CLASS: Final = "scheduler class"
LOADS: Final[dict[str, tuple[workloads.Rate, float, float]]] = {
    "steady 10/s": (workloads.steady(10.0), 10.0, 300.0),
    "steady 25/s": (workloads.steady(25.0), 25.0, 300.0),
    "bursts 10 to 30/s": (workloads.bursts(10.0), 30.0, 420.0),
    "day, peak 31/s": (workloads.diurnal(31.0, DAY_S), 31.0, DAY_S),
    "long day, peak 31/s": (workloads.diurnal(31.0, LONG_DAY_S), 31.0, LONG_DAY_S),
}
"""Rate, the most it gets to, and how many seconds are simulated."""
RULES: Final[dict[str, Callable[[int], Rule]]] = {
    "no batch": lambda _: rivals.NoBatch(),
    "fixed 64": lambda priority: rivals.Fixed(64, priority=priority),
    "fixed 256": lambda priority: rivals.Fixed(256, priority=priority),
    "fixed 1024": lambda priority: rivals.Fixed(1024, priority=priority),
    "run-batch": lambda priority: rivals.Fixed(2048, priority=priority),
    "Gradient2": lambda priority: _with(rivals.Gradient2(), priority),
    "night only": lambda priority: _with(rivals.NightOnly(256, DAY_S), priority),
    "night only, long day": lambda priority: _with(rivals.NightOnly(256, LONG_DAY_S), priority),
    "budget gate": lambda priority: _with(rivals.BudgetGate(), priority),
    "AIBrix AIMD": lambda priority: _with(rivals.AibrixAimd(), priority),
    "Lowtide": lambda priority: Ours(priority=priority),
    "Lowtide, live calls unseen": lambda priority: Ours(priority=priority, sees_live=False),
    "Lowtide, prompts not watched": lambda priority: Ours(priority=priority, streams=False),
    "Lowtide, window = 8": lambda priority: Ours(priority=priority, window_max=8),
    "Lowtide, no yielding": lambda priority: Ours(priority=priority, yields=False),
}
DAY_RULES: Final = ("no batch", "night only", "Lowtide")
"""Those in the picture of the day."""
FRONTIER: Final[dict[str, Callable[[int], Rule]]] = {
    "Lowtide, prompts whole": lambda priority: Ours(priority=priority, parts=False),
    **{
        f"prompts whole, window = {window}": lambda _, window=window: Ours(
            window_max=window, parts=False
        )
        for window in (8, 12, 16, 24)
    },
    **{
        f"Lowtide, itl_slo_ms = {slo}": lambda _, slo=slo: Ours(itl_slo_s=slo / 1000)
        for slo in (40, 75)
    },
}
"""For stock flags, so without a priority: prompts that are not sent in parts, fewer calls in flight
with these, and other targets."""
LONG_ANSWERS: Final = "tolerance 2.5"
"""With this one long answers have 0.75 of the bound, too."""
FRONTIER_LOADS: Final = ("steady 10/s", "steady 25/s", "bursts 10 to 30/s")
NEAR: Final = ("tolerance 1.6", "tolerance 1.9")
"""Those that the class's own tolerance was chosen among."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a rule beside a live load on one replica."""

    rule: str
    load: str
    setup: str
    seed: int
    kind: str = "summ"
    profile: str = "8b-h100"


@dataclass(frozen=True, slots=True)
class Race:
    """One run: a batch alone on one replica, until it is done. `window` None: a rule of RULES finds
    it."""

    window: int | None
    rule: str
    kind: str
    profile: str
    seed: int
    requests: int


def play(cell: Cell) -> dict[str, Any]:
    """What live users felt and what the batch got; `bound` is the offline bound's share."""
    rate, most, until_s = LOADS[cell.load]
    engine = _engine(cell.profile, cell.setup, cell.seed)
    recorder = Recorder(until_s)
    priority = 0 if cell.setup == "stock" else BATCH_PRIORITY
    rule = (RULES | FRONTIER)[cell.rule](priority)
    gateway = Gateway([rule], workloads.batch_requests(cell.kind, cell.seed), recorder)
    arrivals = workloads.live_arrivals(rate, most, until_s, cell.seed)
    VirtualWorld([engine], gateway, arrivals).run(until_s)
    felt = recorder.felt()
    figures = asdict(cell) | asdict(felt)
    figures["of_bound"] = felt.batch_in_per_s / _bound_per_s(cell)
    figures["series"] = sorted(recorder.series.items())
    return figures


def race(run: Race) -> dict[str, Any]:
    """How long the batch took, against the bound that nobody reaches."""
    engine = _engine(run.profile, "stock", run.seed)
    work = list(islice(workloads.batch_requests(run.kind, run.seed), run.requests))
    demand = demand_of(work)
    rule = RULES[run.rule](0) if run.window is None else rivals.Fixed(run.window)
    gateway = Gateway([rule], _fresh(work), Recorder(float("inf")))
    took_s = VirtualWorld([engine], gateway).run()
    bound_s = makespan_bound(demand, engine.profile, engine.config)
    return asdict(run) | {
        "seconds": took_s,
        "of_bound": bound_s / took_s,
        "preemptions": engine.counters.preemptions,
    }


_bounds: dict[tuple[str, str, str, int, str], float] = {}


def _bound_per_s(cell: Cell) -> float:
    """Batch prompt tokens a second that fit beside the live load if its latency did not matter."""
    key = (cell.load, cell.setup, cell.kind, cell.seed, cell.profile)
    if key not in _bounds:
        rate, most, until_s = LOADS[cell.load]
        live = [a.request for a in workloads.live_arrivals(rate, most, until_s, cell.seed)]
        batch = list(islice(workloads.batch_requests(cell.kind, cell.seed), 20_000))
        volume = batch_bound(
            demand_of(live) if live else Demand(),
            demand_of(batch),
            until_s,
            PROFILES[cell.profile],
            SETUPS[cell.setup],
        )
        _bounds[key] = volume * sum(r.prompt_tokens for r in batch) / until_s
    return _bounds[key]


def _engine(profile: str, setup: str, seed: int) -> SimEngine:
    return SimEngine(PROFILES[profile], SETUPS[setup], noise=STEP_NOISE, seed=seed)


def _fresh(work: list[SimRequest]) -> Iterator[SimRequest]:
    return (SimRequest(r.id, r.pieces, r.output_tokens) for r in work)


def _with(rule: Rule, priority: int) -> Rule:
    rule.priority = priority
    return rule


def cells(seeds: range) -> list[Cell]:
    """Every table's runs, the longest first so that no core idles at the end."""
    grid = [
        Cell(rule, load, setup, seed)
        for load in reversed(LOADS)
        for setup in ("stock", "recommended", "smooth")
        for rule in RULES
        for seed in seeds
        if _has_metrics(rule, load, setup)
    ]
    other = [
        Cell(rule, load, "recommended", seed, kind)
        for kind, load, night in (
            ("longgen", "long day, peak 31/s", "night only, long day"),
            ("chat", "day, peak 31/s", "night only"),
        )
        for rule in ("no batch", night, "fixed 256", "Lowtide")
        for seed in seeds
    ]
    return [*other, *grid]


def class_cells(seeds: range) -> list[Cell]:
    """The runs with the scheduler class, and the curve over its tolerance."""
    beside = [
        Cell(rule, load, setup, seed)
        for load in reversed(LOADS)
        if "day" not in load
        for rule, setup in (("Lowtide", CLASS), ("no batch", "stock"))
        for seed in seeds
    ]
    curve = [
        Cell("Lowtide", load, setup, seed)
        for load in ("steady 10/s", "steady 25/s")
        for setup in SETUPS
        if setup.startswith("tolerance") and setup not in NEAR
        for seed in seeds
    ]
    return [*beside, *curve]


def tolerance_cells(seeds: range) -> list[Cell]:
    """The runs that the class's own tolerance was chosen by."""
    return _class_setups((CLASS, *NEAR), seeds)


def class_steps_cells(seeds: range) -> list[Cell]:
    """The class in engines whose steps are smaller, so that long live prompts are cut as well."""
    return _class_setups([setup for setup in SETUPS if setup.startswith("steps")], seeds)


def _class_setups(setups: Iterable[str], seeds: range) -> list[Cell]:
    """Steady live calls beside each of these, and without a batch on vLLM's defaults."""
    return [
        Cell(rule, load, setup, seed)
        for load in ("steady 10/s", "steady 25/s")
        for rule, setup in (("no batch", "stock"), *(("Lowtide", setup) for setup in setups))
        for seed in seeds
    ]


def class_day_cells(seeds: range) -> list[Cell]:
    """The day with the scheduler class, for each kind of batch, which takes many times as long."""
    day, long_day = "day, peak 31/s", "long day, peak 31/s"
    return [
        Cell(rule, load, setup, seed, kind)
        for rule, load, setup, kind in (
            ("Lowtide", long_day, CLASS, "longgen"),
            ("Lowtide", long_day, LONG_ANSWERS, "longgen"),
            ("Lowtide", day, CLASS, "chat"),
            ("Lowtide", day, CLASS, "summ"),
            ("no batch", long_day, "stock", "summ"),
            ("no batch", day, "stock", "summ"),
        )
        for seed in seeds
    ]


def lowtide_cells(seeds: range) -> list[Cell]:
    """Lowtide's own rows of the tables, and what they are compared with."""
    return [
        cell for cell in cells(seeds) if cell.rule == "no batch" or cell.rule.startswith("Lowtide")
    ]


def picture_cells(seeds: range) -> list[Cell]:
    """Every rule beside 10 live calls a second with stock flags, and the day of some."""
    drawn = (("steady 10/s", "stock", None), ("day, peak 31/s", "recommended", DAY_RULES))
    return [
        cell
        for cell in cells(seeds)
        for load, setup, rules in drawn
        if (cell.load, cell.setup, cell.kind) == (load, setup, "summ")
        and (rules is None or cell.rule in rules)
    ]


def frontier_cells(seeds: range) -> list[Cell]:
    """How short the gaps become with stock flags, and what that costs the batch."""
    return [
        Cell(rule, load, "stock", seed)
        for load in FRONTIER_LOADS
        for rule in ("no batch", "Lowtide", *FRONTIER)
        for seed in seeds
    ]


def _has_metrics(rule: str, load: str, setup: str) -> bool:
    """Night-only needs a night; a day with stock flags, and smooth ones, show fewer rules."""
    is_day = load.startswith("day")
    if load.startswith("long") or rule == "night only, long day":
        return False
    if rule == "night only":
        return is_day and setup != "smooth"
    few = ("no batch", "fixed 256", "Lowtide")
    return rule in few or setup == "recommended" or not (is_day or setup == "smooth")


def races(seeds: range) -> list[Race]:
    sizes = {"chat": 6_000, "summ": 3_000, "longgen": 2_500}
    windows = {f"fixed {n}": n for n in (64, 128, 256, 384, 512, 768, 1024, 2048)}
    found: dict[str, int | None] = {"Gradient2": None, "AIBrix AIMD": None, "Lowtide": None}
    return [
        Race(window, rule, kind, profile, seed, size)
        for profile in ("8b-h100", "70b-tp4-h100")
        for kind, size in sizes.items()
        for rule, window in {**windows, **found}.items()
        for seed in seeds
    ]
