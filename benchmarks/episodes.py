"""Processor time of few-shot episodes on features that are there: all classifiers, as ``ipvit fewshot`` runs them.

python benchmarks/episodes.py [--episodes 600]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from ipvit.data.episodes import Sampler, episode_keys, rules
from ipvit.features.episode_classifiers import centroid, logistic, normalised, ridge


def main() -> None:
    """Print the seconds of each classifier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--rules", default="5-way-5-shot")
    parser.add_argument("--width", type=int, default=384, help="numbers a feature vector has")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    features = normalised(rng.normal(size=(600, arguments.width)).astype(np.float32))
    sampler = Sampler(np.repeat(np.arange(20), 30), rules(arguments.rules))
    drawn = [sampler.draw(key) for key in episode_keys([str(i) for i in range(arguments.episodes)], 0, "benchmark")]
    for classifier in (logistic, centroid, ridge):
        started = time.process_time()
        for episode in drawn:
            support, query = features[episode.support], features[episode.query]
            classifier(support, episode.support_labels, query, int(episode.support_labels.max()) + 1)
        print(f"{classifier.__name__:10} {time.process_time() - started:6.2f} s for {len(drawn)} episodes")


if __name__ == "__main__":
    main()
