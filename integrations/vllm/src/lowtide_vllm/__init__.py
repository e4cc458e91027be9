"""A scheduler class for vLLM: batch tokens only where live calls leave room in the step.

`scheduler` holds the class for --scheduler-cls, `requirements` what it needs and its settings,
`info` a metric by which Lowtide recognises it. `step_budget` and `step_time` decide; they are
Lowtide's own files and know nothing of vLLM.
"""

__version__ = "0.1.0"
