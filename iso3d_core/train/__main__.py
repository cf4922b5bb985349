"""For `accelerate launch -m iso3d_core.train PART --work DIR`."""

import tyro

from ..options import TrainOptions
from .run import run


def main(part: tyro.conf.Positional[str], options: TrainOptions) -> None:
    run(part, options)


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
