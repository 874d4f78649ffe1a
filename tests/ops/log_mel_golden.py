"""Writes log_mel_golden.json: what librosa, installed nowhere else, computes of a signal without random numbers.

python3.11 -m venv /tmp/librosa && /tmp/librosa/bin/pip install librosa==0.11.0
/tmp/librosa/bin/python tests/ops/log_mel_golden.py
"""

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_suffix(".json")
CASES = [
    dict(sample_rate=16000, window_size=400, hop=160, num_mels=40, min_frequency=0.0, max_frequency=8000.0),
    dict(sample_rate=22050, window_size=512, hop=128, num_mels=23, min_frequency=80.0, max_frequency=7600.0),
    dict(sample_rate=8000, window_size=255, hop=100, num_mels=19, min_frequency=20.0, max_frequency=4000.0),
]


def signal() -> np.ndarray:
    """A rising tone, a steady one that grows, and a pseudo-random hiss: 1,999 samples."""
    n = np.arange(1999)
    hiss = (n * n * 7919 + n * 104729) % 65537 / 65537 - 0.5
    return 0.5 * np.sin(0.02 * n + 3e-4 * n * n) + 0.3 * n / 1999 * np.sin(0.3 * n) + 0.01 * hiss


def main() -> None:
    import librosa

    decibels = []
    for case in CASES:
        power = librosa.feature.melspectrogram(
            y=signal(),
            sr=case["sample_rate"],
            n_fft=case["window_size"],
            hop_length=case["hop"],
            window="hann",
            center=True,
            pad_mode="constant",
            power=2.0,
            n_mels=case["num_mels"],
            fmin=case["min_frequency"],
            fmax=case["max_frequency"],
            htk=False,
            norm="slaney",
        )
        frames = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None).T
        decibels.append([[round(float(value), 5) for value in frame] for frame in frames])
    GOLDEN.write_text(json.dumps({"librosa": librosa.__version__, "decibels": decibels}) + "\n")


if __name__ == "__main__":
    main()
