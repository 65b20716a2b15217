"""Rows of a study without its runner."""

from __future__ import annotations

import json

from captum_interactions.evaluation import Row
from captum_interactions.evaluation.configuration import CONFIG
from captum_interactions.evaluation.rows import RESULTS, append


def written(folder, rows, measures):
    """The folder of another run, with rows of what a study measures."""
    append(folder / RESULTS, rows)
    about = {"rows": measures, "variants": {}, "made_with": []}
    (folder / CONFIG).write_text(json.dumps(about))
    return str(folder)


def rows_of(study, wrapper, records, variants=None):
    """Rows as the runner makes them, through JSON."""
    rows = []
    for variant in variants or study.variants:
        for index, (record, values) in enumerate(
            zip(records, study.measure(wrapper, variant, records), strict=True)
        ):
            row = Row(record.key, variant, index, "measured", values, image=record.image_key)
            rows.append(Row(**json.loads(row.line())))
    return rows
