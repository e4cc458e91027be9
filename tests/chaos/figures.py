"""From rounds to the table that is printed and kept: what was killed, what it cost, how soon the
node went on."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import mean, median

from faults import Fault
from rounds import Round


def reported(played: Round) -> str:
    """A line of progress."""
    faults = ", ".join(f"{fault.kind} in {fault.phase}" for fault in played.faults) or "no fault"
    fate = "ok" if played.verdict.good else "FAILED"
    return (
        f"{played.env} {played.number}: {fate}, {played.verdict.lines} lines, {faults},"
        f" {played.seconds:.1f} s"
    )


def table(rounds: Sequence[Round]) -> str:
    lines = ["| node | rounds | lines | lost | doubled | in the error file | answers of 5xx |"]
    lines.append("|---|---|---|---|---|---|---|")
    for env in dict.fromkeys(each.env for each in rounds):
        of_house = [each for each in rounds if each.env == env]
        verdicts = [each.verdict for each in of_house]
        refusals: Counter[int] = sum((Counter(each.refusals) for each in of_house), Counter())
        lines.append(
            f"| {env} | {len(of_house)} | {sum(v.lines for v in verdicts)}"
            f" | {sum(v.lost for v in verdicts)} | {sum(v.doubled for v in verdicts)}"
            f" | {sum(v.failed for v in verdicts)} | {dict(refusals) or 'none'} |"
        )
    return "\n".join([*lines, "", *_by_kind(rounds)])


def _by_kind(rounds: Sequence[Round]) -> list[str]:
    by_kind: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for each in rounds:
        for fault in each.faults:
            by_kind[each.env, fault.kind].append(fault)
    lines = [
        "| node | fault | count | run again: mean, max | in flight + one beat: mean, passed |"
        " seconds to resume: median, p95, max | the same on a processor of its own |",
        "|---|---|---|---|---|---|---|",
    ]
    for (env, kind), faults in sorted(by_kind.items()):
        again = [fault.again for fault in faults]
        beats = [fault.one_beat for fault in faults if fault.again]
        passed = sum(fault.again > fault.one_beat for fault in faults)
        resumed = [(f.resumed_s, f.starved_s) for f in faults if f.resumed_s is not None]
        took_s = sorted(seconds for seconds, _ in resumed)
        own_s = sorted(max(0.0, seconds - starved_s) for seconds, starved_s in resumed)
        lines.append(
            f"| {env} | {kind} | {len(faults)} | {mean(again):.1f}, {max(again)}"
            f" | {f'{mean(beats):.1f}, {passed}' if beats else '-'}"
            f" | {_spread(took_s)} | {_spread(own_s)} |"
        )
    struck = (fault for faults in by_kind.values() for fault in faults)
    phases = Counter(phase for fault in struck for phase in fault.phase.split("+"))
    return [*lines, "", f"Phases that faults fell in: {dict(phases.most_common())}"]


def _spread(sorted_s: Sequence[float]) -> str:
    if not sorted_s:
        return "-"
    p95 = sorted_s[min(len(sorted_s) - 1, int(0.95 * len(sorted_s)))]
    return f"{median(sorted_s):.2f}, {p95:.2f}, {sorted_s[-1]:.2f} ({len(sorted_s)})"
