"""Inspects images in child processes, and chooses the range of values with which deep images (more than 8 bits per value) are
read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from evergreen.data.collecting.base import Candidate
from evergreen.data.sources.base import Source, SourceEntry
from evergreen.figures import count
from evergreen.kinds.classify.items import Item, annotated_schema, iter_deep, record_range, recorded_range, schema
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.media.depth import MIN_LEVELS, Sample, levels, may_be_deep, no_contrast
from evergreen.media.faces import detector_file
from evergreen.media.images import BadImage, Inspection, PixelRange
from evergreen.media.isolated import Inspectors, Privacy, Verdict

log = logging.getLogger("evergreen")

SAMPLED_BYTES = 4 * 2**20  # encoded images that are submitted at once for the sample


class ImageInspection:
    """Inspects the images of one collection.

    Attributes:
        pixel_range: the range with which deep images are read; None until the first deep image, and in data sets with deep
            images from before ranges were introduced.
        deep: the number of deep images among those added.
        added: the number of images that were added.
        cleaned, blurred: the numbers of good images from which metadata was removed, and in which faces were hidden.
    """

    noun = "image"

    def __init__(
        self, scenario: ImageScenario, folders: Sequence[Path], source: Source, may_hold_items: Callable[[SourceEntry], bool]
    ) -> None:
        """
        Args:
            folders: the data set's batch folders.
            source: the source of the items; it is read a second time if the range has to be chosen.
            may_hold_items: selects the entries of the source from which the range is chosen.

        Raises:
            EvergreenError: faces are to be blurred, and the face detector is not installed.
        """
        self.scenario, self.folders, self.source = scenario, folders, source
        self.pixel_range = recorded_range(folders)
        self.deep = self.added = self.cleaned = self.blurred = 0
        self._is_annotated = scenario.collect.annotations is not None or scenario.collect.frames is not None
        self.schema = annotated_schema() if self._is_annotated else schema()
        self._may_hold_items = may_hold_items
        self._is_recorded = self._is_chosen = self.pixel_range is not None
        privacy = Privacy(scenario.collect.keep_metadata, scenario.collect.blur_faces)
        if privacy.blur_faces:
            detector_file()
        self._inspectors = Inspectors(scenario.collect.max_pixels, privacy=privacy)
        self.max_pending = 2 * self._inspectors.processes

    def __enter__(self) -> ImageInspection:
        self._inspectors.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inspectors.__exit__(kind, error, trace)

    def submit(self, candidates: Sequence[Candidate]) -> Future[list[Inspection | BadImage]]:
        """Inspect items whose content was read; the answers are in the same order. The items' content is replaced by what may
        be stored of it.

        Raises:
            DataRefused: deep images reach too few levels with the scenario's range.
        """
        images = [candidate.content for candidate in candidates if candidate.content is not None]
        if not self._is_chosen and any(may_be_deep(image) for image in images):
            self._choose_range()
        answer: Future[list[Inspection | BadImage]] = Future()

        def settle(inspected: Future[list[Verdict]]) -> None:
            if error := inspected.exception():
                answer.set_exception(error)
                return
            for candidate, verdict in zip(candidates, inspected.result(), strict=True):
                if verdict.content is not None:
                    candidate.content = verdict.content or None
                    is_good = isinstance(verdict.found, Inspection)
                    self.blurred += is_good and verdict.hides_faces
                    self.cleaned += is_good and not verdict.hides_faces
            answer.set_result([verdict.found for verdict in inspected.result()])

        self._inspectors.submit(images, self.pixel_range).add_done_callback(settle)
        return answer

    def row(self, candidate: Candidate, inspection: Inspection, collected_at: datetime) -> tuple[Any, ...]:
        """The image with its label and the results of the inspection."""
        assert candidate.id is not None and candidate.content is not None
        self.deep += inspection.header.deep
        self.added += 1
        item = Item(
            candidate.id.hex(), candidate.content, candidate.label, candidate.group, candidate.split, candidate.entry.name,
            collected_at, inspection,
        )  # fmt: skip
        return item.annotated_row(candidate.entry.stated) if self._is_annotated else item.row()

    def summary(self) -> str:
        """Sentences about the range with which deep images are read, about removed metadata and hidden faces; empty if there is
        nothing to say."""
        sentences = []
        if self.deep and self.pixel_range is not None:
            others = self.added - self.deep
            mixed = f" of {self.deep:,} new items; the other {others:,} have 8 bits and stay as they are" if others else ""
            low, high = self.pixel_range
            sentences.append(f"Values from {low:.10g} (black) to {high:.10g} (white) are read{mixed}.")
        if self.cleaned:
            sentences.append(f"Metadata was removed from {count(self.cleaned, 'new image')}.")
        if self.scenario.collect.blur_faces:
            sentences.append(f"Faces were found and hidden in {count(self.blurred, 'new image')}; some may be missed.")
        return " ".join(sentences)

    def record(self, folder: Path) -> None:
        """Write the range of deep images, if this batch contains the first ones."""
        if self.deep and self.pixel_range and not self._is_recorded:
            record_range(folder, self.pixel_range)

    def _choose_range(self) -> None:
        """Choose the range of deep images, once for the data set: the scenario's, or else one that suits a sample of the
        source's deep images."""
        self._is_chosen = True
        if next(iter_deep(self.folders), None) is not None:
            return  # the data set is older than ranges: new items are read in the same way as the old ones
        sample = self._sample()
        suits, requested = sample.range(), self.scenario.preprocess.range
        if suits is None:
            return
        if requested is None:
            self.pixel_range = suits
            log.info(
                "collect %s: images have more than 8 bits a value; from a sample of %s, values from %.10g (black) to %.10g (white) are "
                "read, from now on; preprocess.range sets others", self.scenario.name, f"{len(sample):,}", *suits,
            )  # fmt: skip
            return
        self.pixel_range = PixelRange(requested.low, requested.high)
        if (reached := levels(self.pixel_range, suits)) < MIN_LEVELS:
            raise no_contrast(self.scenario, self.pixel_range, reached, suits)

    def _sample(self) -> Sample:
        """A sample of the source's deep images."""
        sample = Sample()
        for images in self._lots(sample):
            for image, values in zip(images, self._inspectors.extremes(images).result(), strict=True):
                if values is not None and not isinstance(values, BadImage):
                    sample.add(image, values)
        return sample

    def _lots(self, sample: Sample) -> Iterator[list[bytes]]:
        """Yield the source's images that may be deep and would belong to the sample, in chunks."""
        lot: list[bytes] = []
        for entry in self.source.stream():
            if entry.data is None or entry.problem or not may_be_deep(entry.data) or not sample.has_room_for(entry.data):
                continue
            if self._may_hold_items(entry):
                lot.append(entry.data)
            if sum(map(len, lot)) >= SAMPLED_BYTES:
                yield lot
                lot = []
        if lot:
            yield lot
