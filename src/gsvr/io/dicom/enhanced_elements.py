"""What the standard demands of an enhanced multi-frame instance beyond geometry, timing and contrast.

A single-shot spin echo at 1.5 T; no reader of gsvr looks at it, but validators and archives do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gsvr.io.dicom.decimals import decimal

if TYPE_CHECKING:
    from pydicom import Dataset

# Of the whole instance: pulse sequence, scanner and image.
_INSTANCE: dict[str, Any] = {
    "DeviceSerialNumber": "0",
    "SoftwareVersions": "0",
    "ContentQualification": "RESEARCH",
    "ResonantNucleus": "1H",
    "KSpaceFiltering": "NONE",
    "ApplicableSafetyStandardAgency": "IEC",
    "BurnedInAnnotation": "NO",
    "LossyImageCompression": "00",
    "PresentationLUTShape": "IDENTITY",
    "MultipleSpinEcho": "NO",
    "MultiPlanarExcitation": "NO",
    "PhaseContrast": "NO",
    "TimeOfFlightContrast": "NO",
    "SteadyStatePulseSequence": "NONE",
    "SaturationRecovery": "NO",
    "SpectrallySelectedSuppression": "NONE",
    "OversamplingPhase": "NONE",
    "GeometryOfKSpaceTraversal": "RECTILINEAR",
    "SegmentedKSpaceTraversal": "SINGLE",
    "RectilinearPhaseEncodeReordering": "LINEAR",
    "NumberOfKSpaceTrajectories": 1,
}
# Of all frames, one sequence of one item each.
_FRAMES: dict[str, dict[str, Any]] = {
    "MRModifierSequence": {
        "InversionRecovery": "NO",
        "FlowCompensation": "NONE",
        "Spoiling": "NONE",
        "T2Preparation": "NO",
        "SpectrallySelectedExcitation": "NONE",
        "SpatialPresaturation": "NONE",
        "PartialFourier": "YES",
        "PartialFourierDirection": "PHASE",
        "ParallelAcquisition": "NO",
    },
    "MRImagingModifierSequence": {
        "MagnetizationTransfer": "NONE",
        "BloodSignalNulling": "NO",
        "Tagging": "NONE",
        "TransmitterFrequency": 63.87,
        "PixelBandwidth": 480.0,
    },
    "MRReceiveCoilSequence": {
        "ReceiveCoilName": "BODY",
        "ReceiveCoilManufacturerName": "",
        "ReceiveCoilType": "MULTICOIL",
        "QuadratureReceiveCoil": "NO",
    },
    "MRTransmitCoilSequence": {
        "TransmitCoilName": "BODY",
        "TransmitCoilManufacturerName": "",
        "TransmitCoilType": "BODY",
    },
    "MRAveragesSequence": {"NumberOfAverages": 1},
}


def add_required_elements(dataset: Dataset, seconds: float, seconds_per_frame: float) -> None:
    """Add them to an instance that has its functional groups.

    Parameters
    ----------
    seconds, seconds_per_frame
        How long the acquisition took, of all and of each.
    """
    for keyword, value in _INSTANCE.items():
        setattr(dataset, keyword, value)
    dataset.AcquisitionContextSequence = []
    dataset.AcquisitionDuration = seconds
    (shared,) = dataset.SharedFunctionalGroupsSequence
    for keyword, elements in _FRAMES.items():
        setattr(shared, keyword, [item(**elements)])
    (coil,) = shared.MRReceiveCoilSequence
    coil.MultiCoilDefinitionSequence = [item(MultiCoilElementName="1", MultiCoilElementUsed="YES")]
    shared.MRFOVGeometrySequence = [
        item(
            InPlanePhaseEncodingDirection="COLUMN",
            MRAcquisitionFrequencyEncodingSteps=dataset.Columns,
            MRAcquisitionPhaseEncodingStepsInPlane=dataset.Rows,
            PercentSampling=100.0,
            PercentPhaseFieldOfView=decimal(100.0 * dataset.Rows / dataset.Columns),
        )
    ]
    region = item(CodeValue="818981001", CodingSchemeDesignator="SCT", CodeMeaning="Abdomen")
    shared.FrameAnatomySequence = [item(AnatomicRegionSequence=[region], FrameLaterality="U")]
    (timing,) = shared.MRTimingAndRelatedParametersSequence
    timing.RFEchoTrainLength, timing.GradientEchoTrainLength = timing.EchoTrainLength, 0
    timing.SpecificAbsorptionRateSequence = [
        item(SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY", SpecificAbsorptionRateValue=1.0)
    ]
    timing.OperatingModeSequence = [
        item(OperatingModeType=kind, OperatingMode="IEC_NORMAL") for kind in ("STATIC FIELD", "RF", "GRADIENT")
    ]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        (content,) = frame.FrameContentSequence
        content.FrameAcquisitionDuration = seconds_per_frame * 1000
        moment = content.get("FrameAcquisitionDateTime", dataset.AcquisitionDateTime)
        content.FrameAcquisitionDateTime = content.FrameReferenceDateTime = moment


def item(**elements: object) -> Dataset:
    """An item of a sequence."""
    from pydicom import Dataset

    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
