"""Reads the data set of a scenario, in the form in which a kind's contract prepares and splits it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.data.dataset import ALLOCATED, FORMER_SPLITS, Records, batches, parts, records, table
from evergreen.errors import EvergreenError
from evergreen.kinds.base.contract import Contract, DataSet
from evergreen.kinds.base.split import BETWEEN, NONE, REASONS, SPLITS, WITHDRAWN, Assignment
from evergreen.preparation.arrays import indices_of
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("evergreen")


def read_data_set(scenario: Scenario, workspace: Workspace, contract: Contract[Any]) -> DataSet:
    """Read the items of a scenario's data set, without their content.

    Raises:
        WrongUse: the scenario's rule for groups does not match the items.
        EvergreenError: the data set has no items in use.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    everything = batches(workspace, scenario.name)
    # Folders without parts contain only records.
    folders, known = [folder for folder in everything if parts([folder])], records(everything)
    columns = dict.fromkeys(["id", "label", "group", "split", *contract.columns(scenario)])
    rows = table(folders, list(columns), Records(known.labels))
    withdrawn = pc.is_in(rows["id"], pa.array(known.withdrawn, pa.string())).to_numpy()
    if withdrawn.all():
        raise EvergreenError(
            f"the data set of {scenario.name} is empty", fix=f"Collect it with: evergreen run {scenario.name}"
        )  # fmt: skip
    groups = contract.groups(scenario, workspace.root, rows)
    rows = rows.set_column(rows.schema.get_field_index("group"), "group", groups)
    return DataSet(workspace.root, everything, folders, rows, withdrawn, _former(everything, rows["id"]))


def _former(folders: Sequence[Path], ids: pa.ChunkedArray) -> Assignment | None:
    """The splits of the items that remained when others were last forgotten; they keep these splits."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    known = [number for number, folder in enumerate(folders) if (folder / FORMER_SPLITS).exists()]
    if not known:
        return None
    rows = pq.read_table(folders[known[-1]] / FORMER_SPLITS)
    count = table(folders[: known[-1] + 1], ["id"], Records()).num_rows
    if rows["id"].combine_chunks() != ids.slice(0, count).combine_chunks():
        log.warning("The items are others than when some were last forgotten: their splits are assigned anew.")
        return None
    split = indices_of(rows[ALLOCATED], SPLITS).astype(np.int8)
    reasons = indices_of(pc.fill_null(rows["left_out"], ""), REASONS)
    left_out = np.where(split != NONE, NONE, np.where((reasons == WITHDRAWN) | (reasons == NONE), BETWEEN, reasons)).astype(
        np.int8
    )
    return Assignment(split, rows["cluster"].to_numpy(), left_out, [])
