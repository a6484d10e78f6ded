"""The settings of a scenario: one YAML file that defines the items, the requirements on them, and how a model is made from
them.

This module has the sections that all kinds share. Every key is typed. Errors name the file, the line, the key, and the allowed
values (`evergreen.scenario.document`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from evergreen.secrets import has_credentials

# Of fsspec's, those of stores: others would read this machine's files, or chain one with another.
REMOTE_SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "oss", "hdfs", "webhdfs", "sftp")
Share = Annotated[float, Field(ge=0, le=1)]
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def known_timezone(value: str) -> str:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (KeyError, OSError, ValueError):  # an unknown name, that of a folder, or one outside the folder of zones
        raise ValueError("is no time zone; expected an IANA name such as Europe/Berlin") from None
    return value


class Section(BaseModel):
    """A part of a scenario.

    Attributes:
        newer: settings that earlier versions did not have. They are serialized only if they differ from their defaults: what is
            on record of an earlier version, such as a model's settings, would otherwise count as made with others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    newer: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _serialized(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        usual = {name for name in self.newer if getattr(self, name) == fields[name].get_default(call_default_factory=True)}
        return {name: value for name, value in values.items() if name not in usual}


class Download(Section):
    """How a public file is downloaded. Credentials are never in a scenario: `token_variable` names an environment variable."""

    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        60.0, description="for the connection, and for each piece of the file"
    )
    max_gigabytes: Annotated[float, Field(gt=0)] = Field(100.0, description="a larger file is refused (1 GB is 10^9 bytes)")
    private_addresses: bool = Field(
        False, description="url may lead to a machine of a private network, or to this one (loopback), also by a redirect"
    )
    other_schemes: bool = Field(False, description="a redirect may lead from http to https, or from https to http")
    token_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        None,
        description="the name of the environment variable that holds a bearer token, which is sent to the server of url alone",
    )


class Sql(Section):
    """A query whose rows are the source, for kinds that read tables. Exactly one of `url` and `url_variable` is given."""

    url: str | None = Field(
        None,
        description="SQLAlchemy's address of the database without user and password, which come from the environment (such as PGUSER and PGPASSWORD)",
    )
    url_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        None, description="the name of the environment variable that holds the whole address, with user and password"
    )
    query: Annotated[str, Field(min_length=1)] = Field(
        description="one SELECT, best with ORDER BY: its rows are read in chunks"
    )
    changed_by: str | None = Field(
        None,
        description="a short query that gives another result when the rows have changed, such as SELECT max(updated), count(*) FROM …; null: they are "
        "read at every collection",
    )

    @model_validator(mode="after")
    def _one_address_without_credentials(self) -> Sql:
        if (self.url is None) == (self.url_variable is None):
            raise ValueError("exactly one of url and url_variable must be given")
        if self.url is not None and has_credentials(self.url):
            raise ValueError(
                "url holds credentials; take them out, or name an environment variable with the address in url_variable"
            )
        return self


class Collect(Section):
    """Where the items come from. Exactly one of `builtin`, `path`, `remote`, `sql` and `file` is given."""

    newer: ClassVar[tuple[str, ...]] = ("retention_days", "download", "remote", "sql")

    builtin: str | None = Field(None, description="a data set that an installed library carries")
    path: str | None = Field(None, description="a folder or archive of your own; relative to the checkout, or absolute")
    remote: str | None = Field(
        None,
        description="a folder of an object store or another server, such as s3://bucket/folder; its library must be installed",
    )
    sql: Sql | None = Field(None, description="a query of a database, for kinds that read tables")
    file: str | None = Field(None, description="an archive that is public: looked for in EVERGREEN_SAMPLES, then fetched")
    url: str | None = Field(None, description="the public address of `file`")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(None, description="checksum of `file`")
    download: Download = Field(
        default_factory=lambda: Download.model_validate({}), description="limits for downloading from url, and access to it"
    )
    encoding: str | None = Field(
        None, description="of file names that the source doesn't say to be UTF-8, such as gbk or cp437; null: what they suggest"
    )
    follow_links: bool = Field(False, description="follow links that lead out of the folder, too; those inside it always are")
    max_bad: Share = Field(
        0.05, description="fraction of items that may be quarantined before the run stops, `damaged` ones aside"
    )
    max_damaged: Share = Field(
        0.05,
        description="fraction of items that may be quarantined as `damaged` (decodable, with wrong pixels) before the run stops",
    )
    mirror: bool = Field(
        False,
        description="follow the source also in what it takes away: items that it no longer has are withdrawn, and items that it labels "
        "otherwise are relabelled, by records that can be undone. false: it only adds, and says what differs",
    )
    max_withdrawn: Share = Field(
        0.2,
        description="fraction of the source's items that mirror may withdraw in one collection; more is refused, as a disk may be away",
    )

    retention_days: Annotated[int, Field(ge=1, le=36_525)] | None = Field(
        None,
        description="items that were collected longer ago are removed for good at the beginning of a run or retraining, as by evergreen forget; "
        "evergreen status says which. null: never",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address_without_credentials(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("https://", "http://")):
            raise ValueError("is no address of the web; expected one that begins with https:// or http://")
        if has_credentials(value):
            raise ValueError("holds credentials; take them out, and name an environment variable in download.token_variable")
        return value

    @field_validator("remote")
    @classmethod
    def _is_a_store_without_credentials(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, separator, place = value.partition("://")
        if scheme not in REMOTE_SCHEMES or not separator or not place or "::" in value:
            raise ValueError(f"is no address of a store; expected one that begins with {', '.join(REMOTE_SCHEMES)} and ://")
        if has_credentials(value):
            raise ValueError(
                "holds credentials; take them out, and set the variables of the environment that its library reads"
            )
        return value

    @field_validator("encoding")
    @classmethod
    def _encodes_names(cls, value: str | None) -> str | None:
        signs = bytes(range(0x20, 0x7F))
        try:
            known = value is None or signs.decode(value) == signs.decode()
        except (LookupError, UnicodeError):
            known = False
        if not known:
            raise ValueError("is no encoding of file names; expected one such as utf-8, gbk, shift_jis, cp437, cp850 or cp1252")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Collect:
        if sum(value is not None for value in (self.builtin, self.path, self.remote, self.sql, self.file)) != 1:
            raise ValueError("exactly one of builtin, path, remote, sql and file must be given")
        if self.builtin is not None and self.retention_days is not None:
            raise ValueError(
                "retention_days is for items of your own: those of a built-in set have the date of its publication"
            )
        return self


class Validate(Section):
    """The requirements on the data. A data set that violates them is refused, and nothing changes."""

    max_duplicate_share: Share = Field(0.5, description="collected items that were exact copies of others")
    max_conflict_share: Share = Field(0.01, description="collected items that were seen under two labels")


class Group(Section):
    """Items of one group (the same part, patient, clip, day, …) always share a split. Exactly one of the two is given."""

    pattern: str | None = Field(
        None, description="regular expression searched in the item's path; its first group is the group"
    )
    csv: str | None = Field(None, description="a CSV file with the columns name and group")

    @model_validator(mode="after")
    def _one_rule(self) -> Group:
        if (self.pattern is None) == (self.csv is None):
            raise ValueError("exactly one of pattern and csv must be given")
        if self.pattern is not None and re.compile(self.pattern).groups < 1:
            raise ValueError("pattern must have a group in parentheses")
        return self


class Preprocess(Section):
    """How items are converted to arrays, and which fractions of them are for validation and testing."""

    val_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2


class Train(Section):
    """How a network is trained; each kind adds the settings of its networks."""

    precision: Literal["auto", "full", "mixed"] = Field(
        "auto", description="mixed: 16-bit arithmetic where the processor is made for it, which auto finds out"
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.4
    patience: Annotated[int, Field(ge=1)] | None = Field(None, description="epochs without gain on val before stopping")
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    max_wh: Annotated[float, Field(gt=0)] | None = None


class Evaluate(Section):
    latency_items: Annotated[int, Field(ge=10)] = Field(200, description="single predictions timed for the latency")


class Promote(Section):
    """The conditions for promoting a new model to champion."""

    item_columns: ClassVar[frozenset[str]]  # columns of the kind's items that can be in `slices`

    metric: str = Field(description="by which a challenger must be better")
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(0.05, description="chance of promoting a model that is no better")
    floor: float | None = Field(
        None,
        description="of the metric: a first model below it is not promoted; a later one must beat the champion. A first model must be better "
        "than the kind's baseline in any case",
    )
    gain_per_doubling: Annotated[float, Field(ge=0)] = Field(
        0.001, description="of the metric: what a challenger must gain for each doubling of the energy of a prediction"
    )
    cheaper: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.7, description="fraction of the champion's energy from which down an equally good challenger is promoted; null: never"
    )
    margin: Annotated[float, Field(gt=0)] = Field(
        description="of the metric; a challenger that surely loses less than this counts as equally good"
    )
    slices: tuple[str, ...] = Field(
        (), description="columns of the items: for no value of one may the challenger be worse by more than chance"
    )
    slice_pattern: str | None = Field(
        None,
        description="regular expression searched in an item's path; each of its named groups, such as (?P<site>…) or (?P<hour>…), is one "
        "more column to slice by",
    )
    min_slice_items: Annotated[int, Field(ge=1)] = Field(
        30, description="test items of a slice, below which it is shown but not judged"
    )

    @field_validator("slice_pattern")
    @classmethod
    def _names_slices(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            names = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        if not names:
            raise ValueError("must have a named group, such as (?P<site>…)")
        if taken := sorted(names.keys() & cls.item_columns):
            raise ValueError(f"has a group named {taken[0]}, which is a column already")
        return value


class Retraining(Section):
    """When the flow `retraining` checks for a reason to train again, and what counts as one. An item is new until a training
    that includes it has finished, promoted or not."""

    cron: str | None = Field(
        None, description="five fields: minute, hour, day of month, month, day of week; null: only when asked"
    )
    timezone: Annotated[str, AfterValidator(known_timezone)] = Field(
        "UTC", description="the IANA name of the zone that `cron` is meant in, such as Europe/Berlin"
    )
    inbox: str | None = Field(
        None, description="folder of what came; relative to the checkout, or absolute; default inbox/NAME"
    )
    settle_seconds: Annotated[float, Field(ge=0)] = Field(
        10.0, description="files changed since are left: they may be half copied"
    )
    min_new_items: Annotated[int, Field(ge=1)] = Field(100, description="so many new or corrected items are enough")
    max_age_days: Annotated[float, Field(gt=0)] | None = Field(
        90.0, description="an older champion is made anew, if there is anything new to learn from; null: however old"
    )
    drift_level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.01, description="probability that one check reports drift, in any feature, although there is none"
    )
    quality_level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.01, description="probability that one check reports a change of quality on new items although there is none"
    )

    start_from: Literal["champion", "scratch"] = Field(
        "champion",
        description="champion: it is fine-tuned first, and training from scratch is tried only where the gate refuses that",
    )
    fine_tune_epochs: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="fraction of train.epochs that fine-tuning takes"
    )
    fine_tune_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.25, description="fraction of train.learning_rate to fine-tune with"
    )

    @field_validator("cron")
    @classmethod
    def _comes(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if len(value.split()) != 5:
            raise ValueError("must have five fields: minute, hour, day of month, month, day of week")
        croniter = _croniter()
        if not croniter.is_valid(value) or {"r", "h"} & set(value.casefold().split()):
            raise ValueError("is not a cron expression that Prefect, which keeps the schedule, understands")
        try:
            croniter(value).get_next()
        except ValueError:
            raise ValueError("names a day that never comes") from None
        return value


def _croniter() -> Any:
    """The module with which Prefect reads schedules, without importing Prefect, which takes longer than a run in which nothing
    has changed."""
    import importlib.util

    prefect = importlib.util.find_spec("prefect")
    assert prefect is not None and prefect.origin is not None
    path = Path(prefect.origin).parent / "_vendor" / "croniter" / "croniter.py"
    spec = importlib.util.spec_from_file_location("evergreen_croniter", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.croniter


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Price(Section):
    """The cost of running; at least one of the two prices is given."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = Field(description="ISO 4217 code, such as EUR")
    per_kwh: Positive | None = Field(None, description="of energy")
    per_machine_hour: Positive | None = Field(None, description="of the machine that runs the stages")

    @model_validator(mode="after")
    def _any(self) -> Price:
        if self.per_kwh is None and self.per_machine_hour is None:
            raise ValueError("at least one of per_kwh and per_machine_hour must be given")
        return self


class Machine(Section):
    """The embodied emissions of the machine, for the Software Carbon Intensity (evergreen/energy/sci.py)."""

    embodied_kgco2e: Positive = Field(
        description="of making the machine and disposing of it; see the maker's product carbon footprint, without the use phase"
    )
    lifespan_years: Positive = Field(4.0, description="for which it is expected to be in use")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="of the machine that the runs have; of a virtual machine, its part of the host's processors"
    )


class Limits(Section):
    """Limits on spending; null: no limit."""

    wh: Positive | None = Field(None, description="watt-hours")
    gco2e: Positive | None = Field(None, description="grams of CO2 equivalents")
    money: Positive | None = Field(None, description="in price.currency")


class Budget(Section):
    """A run that is estimated to exceed a limit is not started."""

    run: Limits = Field(default_factory=lambda: Limits.model_validate({}))
    month: Limits = Field(
        default_factory=lambda: Limits.model_validate({}), description="all runs of the scenario in a calendar month (UTC)"
    )


class Start(Section):
    """When a retraining starts once there is a reason: in the hour before a deadline with the lowest carbon intensity of the
    grid."""

    within_hours: Positive | None = Field(None, description="from when the reason was found; null: it starts at once")
    source: Literal["csv", "electricity-maps", "great-britain"] | None = Field(
        None,
        description="the source of the grid's carbon intensity; electricity-maps needs ELECTRICITYMAPS_TOKEN in the environment",
    )
    file: str | None = Field(None, description="of source csv: times and intensities; relative to the checkout")
    zone: str | None = Field(None, description="of csv and electricity-maps: the grid's name, such as DE")
    timezone: Annotated[str, AfterValidator(known_timezone)] = Field("UTC", description="of the times in the CSV file")

    @model_validator(mode="after")
    def _whole(self) -> Start:
        if self.within_hours is not None and self.source is None:
            raise ValueError("within_hours needs a source of the grid's intensity")
        if self.source in ("csv", "electricity-maps") and self.zone is None:
            raise ValueError(f"source {self.source} needs zone")
        if (self.source == "csv") != (self.file is not None):
            raise ValueError("file is given with source csv, and with no other")
        return self


class Scenario(Section):
    """The settings that all kinds share. Each kind has its own class (`evergreen.scenario.kinds`), which extends the sections
    collect, validate, preprocess, train and promote."""

    # The settings on which a model and the gate's decision on it depend, in the form of pydantic's `include`.
    deciding: ClassVar[dict[str, Any]] = {"kind": True, "seed": True, "preprocess": True, "train": True, "promote": True}

    name: Name
    description: str = ""
    kind: str  # kind, seed and train have no default: DVC reads them from the file as parameters
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    country: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = Field(
        "DEU", description="ISO 3166-1 alpha-3 code of the grid the machine draws on"
    )
    collect: Collect
    validation: Validate = Field(alias="validate")
    preprocess: Preprocess
    train: Train
    evaluate: Evaluate = Field(default_factory=lambda: Evaluate.model_validate({}))
    promote: Promote
    pool: Literal["cpu", "gpu"] = Field("cpu", description="the Prefect work pool whose workers run this scenario")
    retraining: Retraining = Field(default_factory=lambda: Retraining.model_validate({}))
    price: Price | None = None
    machine: Machine | None = None
    start: Start = Field(default_factory=lambda: Start.model_validate({}))
    budget: Budget = Field(default_factory=lambda: Budget.model_validate({}))

    def with_train(self, settings: Mapping[str, Any]) -> Self:
        """A copy with these settings of `train` in place of its own; they are not validated."""
        return self.model_copy(update={"train": self.train.model_copy(update=settings)})

    @model_validator(mode="after")
    def _money_has_a_price(self) -> Scenario:
        if self.price is None and (self.budget.run.money is not None or self.budget.month.money is not None):
            raise ValueError("budget: a limit in money needs the section price")
        return self
