"""Mistakes of RoPE's frequencies: the base, the exponent, and Llama 3.1's stretching.

Each mistake is a function from the blueprint to the frequencies it would have; it shows where those
differ from the right ones, and only at positions other than 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from llama_ref.config import Config
from llama_ref.config.presets import FACTOR_8
from llama_ref.golden.grids import to_bfloat16
from llama_ref.golden.mistake import Mistake
from llama_ref.golden.mistakes.common import ROTATED, at, moved
from llama_ref.golden.mistakes.turning import own_positions, turned
from llama_ref.golden.passes import Moment, Session
from llama_ref.ops.rope_frequencies import rope_frequencies, stretched_frequencies

Frequencies = Callable[[Config], np.ndarray]


def plain(config: Config) -> np.ndarray:
    """Return the frequencies before any scaling."""
    return rope_frequencies(config.head_dim, theta=config.rope_theta, dtype=np.dtype(np.float64))


def stretched(config: Config, frequency_P: np.ndarray, **changed: float) -> np.ndarray:
    """Return frequencies scaled as the config says, with some of its numbers changed."""
    if config.rope_scaling is None:
        return frequency_P
    return stretched_frequencies(frequency_P, **asdict(config.rope_scaling) | changed)


def right(config: Config) -> np.ndarray:
    """Return the right frequencies."""
    return stretched(config, plain(config))


def slowed(config: Config) -> np.ndarray:
    """Return every frequency divided by the factor."""
    return plain(config) / (config.rope_scaling.factor if config.rope_scaling else 1)


def is_blended(config: Config) -> np.ndarray:
    """Say of each pair whether it is in the middle band: neither kept nor fully slowed."""
    return (right(config) != plain(config)) & (right(config) != slowed(config))


def _smooth_inverted(config: Config) -> np.ndarray:
    # (1-s) a + s b becomes s a + (1-s) b, which is a + b less the right one.
    mirrored_P = plain(config) + slowed(config) - right(config)
    return np.where(is_blended(config), mirrored_P, right(config))


def _of_model_width(config: Config) -> np.ndarray:
    # (theta^(-2p/H))^(H/D) = theta^(-2p/D)
    return stretched(config, plain(config) ** (config.head_dim / config.d_model))


def _theta_10000(config: Config) -> np.ndarray:
    frequency_P = rope_frequencies(config.head_dim, theta=10_000.0, dtype=np.dtype(np.float64))
    return stretched(config, frequency_P)


def _uncalled_for(config: Config) -> np.ndarray:
    scaling = config.rope_scaling or FACTOR_8
    return stretched_frequencies(plain(config), **asdict(scaling))


def _only_far(m: Moment) -> np.ndarray:
    scaling = m.model.config.rope_scaling
    is_near_T = own_positions(m.session) < (scaling.original_context if scaling else 0)
    unscaled_TNH = turned(m, frequency_P=plain(m.model.config))
    return np.where(is_near_T[:, None, None], unscaled_TNH, m.computed)


def _only_far_shows(session: Session) -> bool:
    scaling = session.model.config.rope_scaling
    return (
        scaling is not None
        and any(0 < position < scaling.original_context for position in session.case.positions)
        and _differ(plain, session.model.config)
    )


def _differ(frequencies: Frequencies, config: Config) -> bool:
    return not np.allclose(frequencies(config), right(config), rtol=1e-6, atol=0)


def _mistake(id_: str, title: str, what: str, where: str, frequencies: Frequencies) -> Mistake:
    """Return the mistake of turning with these frequencies."""
    return Mistake(
        id_,
        title,
        what,
        where,
        at(ROTATED, lambda m: turned(m, frequency_P=frequencies(m.model.config))),
        lambda session: moved(session) and _differ(frequencies, session.model.config),
    )


MISTAKES = (
    _mistake(
        "rope-scaling-missing",
        "RoPE not scaled",
        "The frequencies are theta^(-2p/H) as they are, without the scaling of Llama 3.1.",
        "The port is from before `rope_scaling`, or reads the key `type` where the config says"
        " `rope_type`; short prompts hardly show it.",
        plain,
    ),
    _mistake(
        "rope-factor-8",
        "RoPE factor 8",
        "The slow frequencies are divided by 8 and not by the factor of the config.",
        "Meta's llama-models had 8 written into `apply_scaling`, and many copied it; Llama 3.2 has"
        " 32.",
        lambda config: stretched(config, plain(config), factor=8.0),
    ),
    _mistake(
        "rope-factor-32",
        "RoPE factor 32",
        "The slow frequencies are divided by 32 and not by the factor of the config.",
        "32 is right for Llama 3.2 1B and 3B, and was written into a port made for them.",
        lambda config: stretched(config, plain(config), factor=32.0),
    ),
    _mistake(
        "rope-smooth-inverted",
        "RoPE blend upside down",
        "In the middle band the shares of kept and slowed frequency are exchanged.",
        "`(1 - smooth)` stands at the wrong term, or the blend was carried over from wavelengths to"
        " frequencies without turning it round.",
        _smooth_inverted,
    ),
    _mistake(
        "rope-smooth-missing",
        "RoPE without middle band",
        "Frequencies in the middle band are kept where they should be blended.",
        "The third branch of `apply_scaling` is missing, so that there are only fast and slow"
        " pairs.",
        lambda config: np.where(is_blended(config), plain(config), right(config)),
    ),
    _mistake(
        "rope-scaling-linear",
        "linear RoPE scaling",
        "Every frequency is divided by the factor, the fast ones too.",
        "That is `rope_type` linear, or position interpolation; the factor was read and the type"
        " was not.",
        slowed,
    ),
    Mistake(
        "rope-scaling-only-far",
        "RoPE scaled only beyond the original context",
        "Positions within the original context are turned by unscaled frequencies.",
        "Dynamic NTK and LongRoPE switch by length; the scaling of Llama 3.1 holds at every"
        " position.",
        at(ROTATED, _only_far),
        _only_far_shows,
    ),
    _mistake(
        "rope-wavelength-without-2pi",
        "RoPE wavelength without 2 pi",
        "Bands are chosen by 1/f in place of the wavelength 2 pi / f.",
        "The factor 2 pi is missing in the line that computes `wavelen`, so that pairs count as"
        " faster than they are.",
        lambda config: stretched(
            config,
            plain(config),
            original_context=2 * np.pi * (config.rope_scaling or FACTOR_8).original_context,
        ),
    ),
    _mistake(
        "rope-factors-inverted",
        "RoPE factors multiplied in place of divided",
        "Slow pairs are sped up by the factor that should slow them down.",
        "The `rope_freqs` of ggml divide the angle and MLX's `freqs` are periods; a port that takes"
        " either for a multiplier of frequencies does this.",
        lambda config: plain(config) ** 2 / right(config),
    ),
    _mistake(
        "rope-scaling-uncalled-for",
        "RoPE scaled where nothing was asked for",
        "The frequencies are scaled with factor 8 though the config has no scaling.",
        "A loader for Llama 3.1 takes its defaults for Llama 3.0 or Llama 2, or `use_scaled` is"
        " true by default.",
        _uncalled_for,
    ),
    _mistake(
        "rope-theta-10000",
        "RoPE base 10,000",
        "The base of the frequencies is 10,000, whatever the config says.",
        "It is the default of Llama 2 and of most libraries, and taken where `rope_theta` is not"
        " read (transformers 5 keeps it within `rope_parameters`).",
        _theta_10000,
    ),
    _mistake(
        "rope-exponent-halved",
        "RoPE exponent p/H in place of 2p/H",
        "The frequencies are theta^(-p/H), so that they fall half as fast from pair to pair.",
        "The range goes over pairs where `arange(0, dim, 2)` goes over channels, and is divided by"
        " the width all the same.",
        lambda config: stretched(config, plain(config) ** 0.5),
    ),
    _mistake(
        "rope-exponent-of-model-width",
        "RoPE exponent by the model's width",
        "The frequencies are theta^(-2p/D), with the width of the model in place of the head's.",
        "`dim` is passed from the wrong place: rotary code takes the width of one head.",
        _of_model_width,
    ),
    _mistake(
        "rope-frequencies-in-bfloat16",
        "RoPE frequencies in bfloat16",
        "The frequencies are rounded to bfloat16 before they are multiplied by positions.",
        "`inv_freq` is a buffer, and `model.bfloat16()` or `.half()` rounds buffers too; the error"
        " of the angle grows with the position.",
        lambda config: to_bfloat16(right(config)),
    ),
)
