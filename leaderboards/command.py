"""What is done with finished runs: tables, verification, submission, and runs that were made elsewhere."""

from __future__ import annotations

import argparse

from benchmark.files import make_folder
from leaderboards import foreign, publish
from leaderboards import submit as submission
from leaderboards import verify as verification


def leaderboard(args: argparse.Namespace) -> int:
    """Exit code 0."""
    print("\n".join(publish.everything(args.output_dir, args.publish, args.html)))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Exit code: 0 every run passes, 1 some run fails."""
    verdicts = verification.verify(args.path, data_dir=args.data_dir)
    print("\n".join(verification.report(verdicts)))
    return int(not all(one.passed for one in verdicts))


def submit(args: argparse.Namespace) -> int:
    """Exit code 0."""
    print("\n".join(submission.submit(args.path, args.to, data_dir=args.data_dir)))
    return 0


def import_run(args: argparse.Namespace) -> int:
    """Exit code 0."""
    make_folder(args.output_dir)
    sidecar = args.sidecar or foreign.sidecar_of(args.file)
    record = foreign.import_run(args.file, sidecar, output_dir=args.output_dir, data_dir=args.data_dir)
    print(f"{record.method} on {record.dataset} under {record.protocol['name']} stands in {record.folder}")
    return 0
