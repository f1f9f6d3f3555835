"""The same builder on Apache Beam: on this machine, or on a cluster of Flink, Spark or Dataflow.

One element of the pipeline is one recording. Its shard and its facts are written to the data directory by
whichever machine it comes to; this process waits for the end and reads what was written, and the index is
then made as ever. So recordings and data directory must be in reach of every machine by the same paths (the
latter may be gs://…), and `sspd_jax` installed there. Beam may do an element twice, one after the other:
the second writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sspd_jax.datasets import format, preparation
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.video import decode
from sspd_jax.video.face_detection import make_detector

try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineState
except ImportError as error:
    raise ConfigError("Apache Beam is not installed; run `pip install sspd_jax[beam]`") from error


class _Build(apache_beam.DoFn):
    """Prepares a recording: job → nothing, all is written."""

    def __init__(self, settings: format.Settings, face_model: str):
        self._settings, self._face_model = settings, face_model

    def setup(self) -> None:
        """Make the face detector, once in a worker."""
        decode.use_threads(preparation.MOST_THREADS)
        self._detector = make_detector(self._settings.face_detector, self._face_model)

    def process(self, job: preparation.Job) -> None:
        """Prepare a recording, or note why not."""
        outcome = preparation.build(job, self._settings, self._detector)
        if outcome.facts is None:
            job.note_failure(outcome.why)


def build_all(
    jobs: Sequence[preparation.Job], settings: format.Settings, face_model: str, options: Sequence[str]
) -> Iterator[tuple[preparation.Job, preparation.Outcome]]:
    """Prepare recordings by a pipeline, and wait for it.

    Args:
      jobs: Jobs to do.
      settings: Settings of the dataset.
      face_model: Path of YuNet's model file.
      options: Options of the pipeline, such as ['--runner=FlinkRunner']; without any it runs here.

    Yields:
      Each job and its outcome.

    Raises:
      UserError: The pipeline failed; what it finished stays.
    """
    if not jobs:
        return
    try:
        pipeline = apache_beam.Pipeline(options=PipelineOptions(list(options)))
        (
            pipeline
            | "recordings" >> apache_beam.Create(list(jobs), reshuffle=False)
            | "spread" >> apache_beam.Reshuffle()
            | "prepare" >> apache_beam.ParDo(_Build(settings, face_model))
        )
        state = pipeline.run().wait_until_finish()
    # A runner raises whatever it likes, with the worker's traceback as its text.
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else type(error).__name__
        raise UserError(
            f"the pipeline failed ({reason}); mend that and run again: what is finished stays"
        ) from error
    if state != PipelineState.DONE:
        raise UserError(f"the pipeline ended as {state}; see its log and run again: what is finished stays")
    for job in jobs:
        why = job.take_failure()
        if why is not None:
            yield job, preparation.Outcome(None, why)
            continue
        facts = job.finished()
        if facts is None:
            raise UserError(
                f"{job.recording_id}: the pipeline left no shard in the data directory; let its machines "
                "reach that by the same path"
            )
        yield job, preparation.Outcome(facts)
