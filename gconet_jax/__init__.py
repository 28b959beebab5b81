"""GCoNet+ in JAX: training, evaluation and inference for co-salient object detection."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gconet_jax.evaluation.scoring import evaluate_maps
    from gconet_jax.inference.predictor import Predictor

__all__ = ['Predictor', 'evaluate_maps']


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that importing the package is fast."""
    if name == 'evaluate_maps':
        from gconet_jax.evaluation.scoring import evaluate_maps

        return evaluate_maps
    if name == 'Predictor':
        from gconet_jax.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
