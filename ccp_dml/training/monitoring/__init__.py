"""What a run shows in TensorBoard: one callback, or one function, per kind of view.

All of them write through one `events.EventLog`, against the global step. Their order in the callback list:

1. producers, which add scalars to the epoch's logs: `distances.DistanceMonitor`, `coverage.CoverageMonitor`;
2. `scalars.ScalarLogger`, which writes every scalar of the logs (so will a CSV file that comes after them);
3. `panels.RetrievalPanels` and `hparams.HParamsLogger`, in any place;
4. whatever saves checkpoints, last: a point is on disk before the checkpoint that would not repeat it.

`scalars.write_results` and `projector.write_projector` are called once, when the run has been evaluated.
"""
