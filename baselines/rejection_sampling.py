"""RejectionSampling: both agents fine-tuned on those of their own replies that were right.

To raise the likelihood of what is kept is fine-tuning on one's own successes, as in RAFT (arXiv:2304.06767) and ReST-EM
(arXiv:2312.06585). A single turn is kept or not, rather than a dialogue (our choice), see `coars_env.kept_terms`.

    coars compare --systems rejection_sampling
"""

from dataclasses import dataclass

from agents.training.recipe import CoTraining, Setting, Training
from baselines.trained_pair import TrainedPair
from coars_env import kept_terms


@dataclass(frozen=True, kw_only=True)
class RejectionSamplingRecipe(CoTraining):
    """Keep the replies that were right and make them likelier."""

    def build(self, setting: Setting) -> Training:
        return Training(self.players(setting), kept_terms, self.optimisation())


class RejectionSampling(TrainedPair):
    """Fine-tuning on one's own right replies."""

    recipe = RejectionSamplingRecipe()
