"""Collect comparisons: two variants of the newest policy answer, somebody chooses and grades (section 3.2.1).

``annotate.source=simulated`` asks the toy world's annotators; ``ui`` serves the annotation app and waits for people;
``dataset`` takes comparisons that exist. Leaves ``comparisons.jsonl`` and ``heldout_comparisons.jsonl`` in the round's
``annotate`` folder.

    python -m stages.annotate
    python -m stages.annotate annotate.source=ui annotate.helpfulness_pairs=50 annotate.safety_pairs=50
    python -m stages.annotate annotate.source=dataset annotate.data=pairs.jsonl annotate.dimension=safety
"""
