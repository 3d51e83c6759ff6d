"""Random intensities: like T2-weighted single-shot images in some scenes, anything at all in the others."""

from __future__ import annotations

import numpy as np

from training.brain_mask.anatomy import Tissue

# low and high ends of T2-weighted brightness, where 1 is about the brightness of fluid
T2_LIKE: dict[int, tuple[float, float]] = {
    Tissue.AIR: (0.0, 0.02),
    Tissue.WHITE_MATTER: (0.35, 0.7),
    Tissue.INNER_FLUID: (0.75, 1.15),
    Tissue.CEREBELLUM: (0.2, 0.5),
    Tissue.OUTER_FLUID: (0.7, 1.15),
    Tissue.CORTEX: (0.2, 0.45),
    Tissue.DEEP_GREY: (0.25, 0.5),
    Tissue.BRAINSTEM: (0.25, 0.5),
    Tissue.CALLOSUM: (0.3, 0.6),
    Tissue.SKULL: (0.02, 0.25),
    Tissue.SCALP: (0.15, 0.65),
    Tissue.EYE: (0.6, 1.2),
    Tissue.LENS: (0.0, 0.3),
    Tissue.SKULL_BASE: (0.05, 0.4),
    Tissue.FAT: (0.3, 1.2),
    Tissue.MUSCLE: (0.05, 0.3),
    Tissue.UTERUS: (0.1, 0.5),
    Tissue.UTERUS_LINING: (0.1, 0.6),
    Tissue.PLACENTA: (0.25, 0.65),
    Tissue.PLACENTA_VESSEL: (0.0, 0.9),
    Tissue.AMNIOTIC: (0.7, 1.3),
    Tissue.LIMB: (0.15, 0.5),
    Tissue.BONE: (0.03, 0.35),
    Tissue.FETAL_SKIN: (0.15, 0.6),
    Tissue.LUNG: (0.3, 0.8),
    Tissue.LIVER: (0.1, 0.4),
    Tissue.HEART: (0.0, 0.3),
    Tissue.FETAL_FLUID: (0.6, 1.2),
    Tissue.CORD: (0.2, 0.8),
    Tissue.CORD_VESSEL: (0.0, 0.5),
    Tissue.VERTEBRA: (0.05, 0.4),
    Tissue.DISC: (0.15, 0.7),
    Tissue.SPINAL_FLUID: (0.6, 1.2),
    Tissue.BLADDER: (0.6, 1.3),
}
MOSAICS = {
    Tissue.ORGAN: (4, 0.1, 0.55),
    Tissue.MATERNAL: (8, 0.05, 0.6),
    Tissue.FETAL: (8, 0.1, 0.55),
    Tissue.FACE: (8, 0.05, 0.7),
}
FLUIDS = [Tissue.INNER_FLUID, Tissue.OUTER_FLUID, Tissue.SECOND_BRAIN + 1, Tissue.SECOND_BRAIN + 3]


def draw_intensities(rng: np.random.Generator) -> np.ndarray:
    """Brightness of every tissue (COUNT,), fluid about 1."""
    n = int(Tissue.COUNT)
    if rng.random() < 0.3:
        table = rng.random(n).astype(np.float32) ** rng.uniform(0.6, 1.6)
        if rng.random() < 0.8:
            table[Tissue.AIR] = rng.uniform(0, 0.1)
        # the same tissue a little different elsewhere
        table[9:17] = np.clip(table[1:9] + rng.normal(0, 0.12, 8), 0, None)
        return table
    table = rng.uniform(0.05, 0.6, n).astype(np.float32)
    for tissue, (low, high) in T2_LIKE.items():
        table[tissue] = rng.uniform(low, high)
    for first, (count, low, high) in MOSAICS.items():
        table[first : first + count] = rng.uniform(low, high, count)
        if rng.random() < 0.5:  # bowel and vessels with fluid
            table[first + rng.integers(count)] = rng.uniform(0.6, 1.2)
    # little contrast inside the brain, as with balanced sequences, in some scenes
    contrast = rng.choice([1.0, 1.0, rng.uniform(0.2, 0.8)])
    tissues = [
        Tissue.WHITE_MATTER,
        Tissue.CEREBELLUM,
        Tissue.CORTEX,
        Tissue.DEEP_GREY,
        Tissue.BRAINSTEM,
        Tissue.CALLOSUM,
    ]
    mean = table[tissues].mean()
    table[tissues] = mean + contrast * (table[tissues] - mean)
    if rng.random() < 0.6:  # fluid is mostly equally bright inside and around the brain
        table[Tissue.OUTER_FLUID] = table[Tissue.INNER_FLUID] * rng.normal(1, 0.05)
    if rng.random() < 0.25:  # dark or dim amniotic fluid: moving, or with blood
        table[Tissue.AMNIOTIC] = rng.uniform(0.05, 0.7)
    elif rng.random() < 0.75:
        table[Tissue.AMNIOTIC] = table[Tissue.OUTER_FLUID] * rng.normal(1, 0.08)
    table[9:17] = table[1:9] * rng.normal(1, 0.1, 8)
    return table


def draw_textures(rng: np.random.Generator) -> np.ndarray:
    """How much the brightness of every tissue varies from place to place (COUNT,), as a fraction."""
    texture = rng.uniform(0, rng.uniform(0.05, 0.3), int(Tissue.COUNT)).astype(np.float32)
    texture[FLUIDS] *= 0.3
    return texture
