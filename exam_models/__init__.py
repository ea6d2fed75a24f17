# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""The exam manager's records, for use where ``scanhub_libraries`` is not installed.

The names and the fields are those of ScanHub of February 2026. Answers of August
2025, which lack ``position`` and ``calibration``, are read as well. A field that
is newer than these models is kept as it came, nested ones included, so that a
record that is read, changed and written back is whole.
"""

from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AcquisitionLimits",
    "AcquisitionParameter",
    "AcquisitionTaskOut",
    "CalibrationType",
    "Gender",
    "ItemStatus",
    "MRISequenceOut",
    "ResultOut",
    "ResultType",
    "SetResult",
    "TaskType",
    "XYZ",
]


class TaskType(str, Enum):
    """What a task does; the device manager works on ``ACQUISITION`` alone."""

    ACQUISITION = "ACQUISITION"
    DAG = "DAG"
    RECONSTRUCTION = "RECONSTRUCTION"
    PROCESSING = "PROCESSING"


class ItemStatus(str, Enum):
    """How far a task has come."""

    NEW = "NEW"
    UPDATED = "UPDATED"
    STARTED = "STARTED"
    FINISHED = "FINISHED"
    ERROR = "ERROR"
    INPROGRESS = "INPROGRESS"


class CalibrationType(str, Enum):
    """A calibration that precedes an acquisition."""

    FLIPANGLE = "flip-angle"
    FREQUENCY = "frequency"
    SHIMS = "shims"


class Gender(str, Enum):
    """A patient's gender."""

    MALE = "MALE"
    FEMALE = "FEMALE"
    OTHER = "OTHER"
    NOT_GIVEN = "NOT_GIVEN"


class ResultType(str, Enum):
    """The format of a result's files; ``NOT_SET`` for a blank result."""

    DICOM = "DICOM"
    MRD = "MRD"
    NPY = "NUMPY"
    CALIBRATION = "CALIBRATION"
    NOT_SET = "NOT_SET"


class _Record(BaseModel):
    """What all records have in common: they keep the fields that they do not know."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class XYZ(_Record):
    """A value for each axis."""

    x: float
    y: float
    z: float


class AcquisitionParameter(_Record):
    """Scaling, offset and rotation of the field of view."""

    fov_scaling: XYZ
    fov_offset: XYZ
    fov_rotation: XYZ


class AcquisitionLimits(_Record):
    """The patient that an acquisition is limited to."""

    patient_height: int
    patient_weight: int
    patient_gender: Gender = Gender.NOT_GIVEN
    patient_age: int


class SetResult(_Record):
    """What a device manager says of a result's files."""

    type: ResultType
    directory: str
    files: list[str] = []
    meta: dict[Any, Any] | None = None


class ResultOut(SetResult):
    """A result, as the exam manager holds it: a `SetResult` with its task, id and time."""

    task_id: UUID
    id: UUID
    datetime_created: datetime


class AcquisitionTaskOut(_Record):
    """A task, as the exam manager holds it."""

    workflow_id: UUID | None = None
    name: str
    description: str
    task_type: TaskType
    destination: str
    status: ItemStatus
    progress: int
    is_template: bool
    position: int = 0
    device_id: UUID | None = None
    calibration: list[CalibrationType] = []
    sequence_id: str | None = None
    acquisition_parameter: AcquisitionParameter | None = None
    id: UUID
    creator: str
    datetime_created: datetime
    datetime_updated: datetime | None = None
    results: list[ResultOut]
    acquisition_limits: AcquisitionLimits | None = None


class MRISequenceOut(_Record):
    """A sequence with its files; ``id`` is ``_id`` on the wire."""

    name: str
    description: str
    sequence_type: str
    tags: list[str] = []
    id: str = Field(alias="_id")
    created_at: datetime
    updated_at: datetime | None = None
    seq_file: Any
    seq_file_extension: str | None = None
    xml_file: Any = None
    xml_file_extension: str | None = None
