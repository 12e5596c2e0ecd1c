"""Whether an app whose provider fails disturbs another app of the same process.

    python -m bench.isolation [--repeats 3] [--rate 500] [--seconds 8]

The app "sick" has a backlog, and a provider that treats it in one of several bad ways; "well" gets requests at a steady
rate, and then works off a backlog of its own as fast as it goes. Both are set beside the same without work for "sick".
Writes a table to docs/performance.md; the exit status is 1 when "well" comes off more than a fifth worse.
"""

import argparse
import contextlib
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bench import topics
from bench.create_bench import messages
from bench.document import Table, markdown, rewrite
from bench.ground import Ground, Run, Work, reference_s
from bench.services import RECOMMENDED, SERVICES
from bench.throughput import latency, percentile, workspace
from lab.nginx import Nginx

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
APNS = SERVICES["apns"]
TOLERANCE = 0.2
#: s until "sick" has filled all that it can fill
SICKENING_S = 3.0

#: how the provider treats "sick": the beginning of its device tokens -> what it is called, and what nginx does
TREATMENTS = {
    "silent": ("no answer, ever", "echo_sleep 3600; echo_duplicate 1 '';"),
    "reset": ("every stream is reset", "return 444;"),
    "throttled": ("429 to everything", """default_type application/json; return 429 '{"reason":"TooManyRequests"}';"""),
    "slow": ("answers after 5 s", "echo_sleep 5; echo_duplicate 1 '';"),
}
UNDISTURBED = "undisturbed"


class Seen(NamedTuple):
    """How "well" fared: what each of its pushes took, sorted, and how many went out in a second."""

    latencies_ms: list[float]
    rate_s: float

    def __str__(self) -> str:
        p50, p99 = percentile(self.latencies_ms, 0.5), percentile(self.latencies_ms, 0.99)
        return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, {self.rate_s:,.0f} pushes/s"


class Isolation:
    """The ground, with a backlog of each kind of sickness."""

    def __init__(self, ground: Ground, rate_s: float, seconds: float) -> None:
        self.ground = ground
        self.rate_s, self.seconds = rate_s, seconds
        locations = (f"location /3/device/{start} {{ {what} }}" for start, (_, what) in TREATMENTS.items())
        self.nginx = ground.started(Nginx(ground.fresh("nginx"), log_arrivals=True, locations="\n".join(locations)))
        ground.create(APNS.feedbacks("sick"), APNS.feedbacks("well"), APNS.source("sick", UNDISTURBED))
        for start in TREATMENTS:
            ground.create(APNS.source("sick", start))
            texts = (text.replace('"DeviceToken":"', f'"DeviceToken":"{start}', 1) for text in self._texts(50_000))
            topics.fill(ground.kafka.brokers, APNS.source("sick", start), texts)
        self.backlog = APNS.source("well", "backlog")
        ground.create(self.backlog)
        topics.fill(ground.kafka.brokers, self.backlog, self._texts(100_000), copies=5)
        self._runs = 0
        #: of the texts written last; each has other device tokens
        self._seed = 100

    def _texts(self, number: int, seed: int = 1) -> list[str]:
        return list(messages("apns", number, seed=seed))

    def run(self, treatment: str, well: str) -> Run:
        """A process that serves both apps, when "sick" has done what it can do."""
        sources = [APNS.source("sick", treatment), well]
        work = Work(APNS, self.nginx, sources, apps=("sick", "well"), settings=RECOMMENDED["apns"])
        run = Run(self.ground, work)
        run.await_members()
        time.sleep(SICKENING_S)
        return run

    def steadily(self, treatment: str) -> list[float]:
        """Latencies of "well" at the steady rate, in ms. The first second, in which all is new, does not count."""
        self._runs += 1
        brokers, source = self.ground.kafka.brokers, APNS.source("well", f"steady-{self._runs}")
        self.ground.create(source)
        with self.run(treatment, source) as run:
            self._write(run, source, 1.0)
            with contextlib.closing(topics.Watcher(brokers, source)) as requests:
                self._write(run, source, self.seconds)
                return latency(requests, run.feedbacks, self.nginx, APNS).accepted

    def _write(self, run: Run, source: str, seconds: float) -> None:
        """Requests at the steady rate, until all are fed back."""
        number = int(self.rate_s * seconds)
        goal = run.feedbacks.counts()[APNS.feedbacks("well")] + number
        self._seed += 1
        topics.write(self.ground.kafka.brokers, source, self._texts(number, seed=self._seed), rate_s=self.rate_s)
        run.await_until("all fed back", lambda: run.feedbacks.counts()[APNS.feedbacks("well")] >= goal)

    def at_full_speed(self, treatment: str) -> float:
        """Pushes a second of "well"."""
        with self.run(treatment, self.backlog) as run:
            stretch = run.stretch(self.seconds / 2)
            topic = APNS.feedbacks("well")
            return (stretch.after.pushes_of_topic[topic] - stretch.before.pushes_of_topic[topic]) / stretch.seconds

    def observe(self, treatment: str) -> Seen:
        """Both ways."""
        return Seen(self.steadily(treatment), self.at_full_speed(treatment))


def together(runs: list[Seen]) -> Seen:
    """The latencies of all runs, and the median rate."""
    return Seen(sorted(ms for run in runs for ms in run.latencies_ms), statistics.median(run.rate_s for run in runs))


def verdicts(found: dict[str, Seen]) -> dict[str, tuple[float, float]]:
    """p99 and rate of each treatment as multiples of the undisturbed ones."""
    p99_ms = {name: percentile(seen.latencies_ms, 0.99) for name, seen in found.items()}
    base = found[UNDISTURBED]
    return {name: (p99_ms[name] / p99_ms[UNDISTURBED], seen.rate_s / base.rate_s) for name, seen in found.items()}


def table(found: dict[str, Seen]) -> Table:
    """A row for each treatment."""
    rows = [["the other app's provider", "p50, ms", "p99, ms", "of undisturbed", "pushes/s", "of undisturbed"]]
    for name, (p99, rate) in verdicts(found).items():
        seen = found[name]
        title = TREATMENTS[name][0] if name in TREATMENTS else "has nothing to do"
        latencies = [f"{percentile(seen.latencies_ms, share):.1f}" for share in (0.5, 0.99)]
        rows.append([title, *latencies, f"{p99:.0%}", f"{seen.rate_s:,.0f}", f"{rate:.0%}"])
    return rows


def disturbed(found: dict[str, Seen]) -> list[str]:
    """Treatments under which the other app came off worse than it may."""
    return [name for name, (p99, rate) in verdicts(found).items() if p99 > 1 + TOLERANCE or rate < 1 - TOLERANCE]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=500, help="requests a second, default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8, help="of the steady rate, default: %(default)s")
    return parser.parse_args()


def main() -> int:
    """Observe each treatment in turn. Returns the exit status."""
    arguments = parsed()
    observed: dict[str, list[Seen]] = {name: [] for name in (UNDISTURBED, *TREATMENTS)}
    references = []
    with workspace() as directory, contextlib.ExitStack() as cleanup:
        isolation = Isolation(Ground(directory, cleanup), arguments.rate, arguments.seconds)
        for _ in range(arguments.repeats):
            for name, runs in observed.items():
                references.append(reference_s() * 1000)
                runs.append(isolation.observe(name))
                print(f"reference {references[-1]:.0f} ms, {name}: {runs[-1]}", flush=True)
    how = (
        f"{arguments.repeats} repeats at {arguments.rate:g} requests/s for {arguments.seconds:g} s each; the "
        f"reference loop took {min(references):.0f} to {max(references):.0f} ms."
    )
    found = {name: together(runs) for name, runs in observed.items()}
    rows = markdown(table(found))
    print(rows)
    rewrite(PAGE, "isolation", f"{how}\n\n{rows}")
    if worse := disturbed(found):
        print(f"disturbed by more than {TOLERANCE:.0%}: {', '.join(worse)}")
    return int(bool(worse))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        sys.exit(f"bench: {error}")
