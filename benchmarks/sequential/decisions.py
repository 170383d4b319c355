"""Time to decision and width beside fixed-horizon oracles and confseq, savvi, gbstats and ville.

Ours are fed in batches of 10 to 500 and decide at the end of one, so their times are rounded up;
peers are asked after every record where they can be, else at sizes that grow by 1-2 %. Peers are
slow and see the first few streams only; "ours / peer" compares medians over just those. A stream
without a decision counts with infinity in quantiles.

    python -m benchmarks sequential-decisions [--quick]
"""

from __future__ import annotations

import sys

from benchmarks.harness import Result
from benchmarks.sequential.decide_rates import binary, means, paired, rare
from benchmarks.sequential.decide_tail import tail, two_quantiles
from benchmarks.sequential.decide_widths import widths
from benchmarks.sequential.report import Report


def run(quick: bool = False) -> Result:
    """All comparisons; progress goes to standard error."""
    report = Report(quick)
    for part in (tail, two_quantiles, binary, rare, paired, means, widths):
        part(report)
    return report.finish()


def main() -> None:
    """Run by itself."""
    result = run("--quick" in sys.argv)
    result.write()
    print(result.markdown())


if __name__ == "__main__":
    main()
