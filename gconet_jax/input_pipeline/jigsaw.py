"""Distractors from the same batch, on the accelerator: joined images and intruders."""

import jax
import jax.numpy as jnp

# Range of the fraction of a jigsaw that the image itself covers.
LEAST_OWN, MOST_OWN = 0.35, 0.65


def jigsaws(
    key: jax.Array, image: jax.Array, mask: jax.Array, valid: jax.Array, probability: float
) -> tuple[jax.Array, jax.Array]:
    """Randomly join images (P, 2, N, S, S, 3) and their masks with other images of the batch.

    The other image is drawn from the whole batch. Its mask counts if it comes from the same group,
    and is empty otherwise. The network then has to distinguish what is shared from what is salient,
    and a joint alone reveals nothing. Based on the jigsaws of Zhang et al., "Gradient-Induced
    Co-Saliency Detection", ECCV 2020.
    """
    places = jnp.arange(valid.size)
    keys = jax.vmap(lambda place: jax.random.fold_in(key, valid.size + place))(places)
    images, masks = (x.reshape(valid.size, *x.shape[3:]) for x in (image, mask))
    seen, group = valid.reshape(-1), places // valid.shape[-1]

    def of_image(key: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        happens, which, how = jax.random.split(key, 3)
        other = jax.random.randint(which, (), 0, valid.size)
        same = (group[other] == group[place]).astype(masks.dtype)
        x, y = join(how, images[place], masks[place], images[other], same * masks[other])
        happens = jax.random.bernoulli(happens, probability) & seen[other]
        return jnp.where(happens, x, images[place]), jnp.where(happens, y, masks[place])

    x, y = jax.vmap(of_image)(keys, places)
    return x.reshape(image.shape), y.reshape(mask.shape)


def intruders(
    key: jax.Array, image: jax.Array, mask: jax.Array, valid: jax.Array, probability: float
) -> tuple[jax.Array, jax.Array]:
    """Randomly replace images (P, 2, N, S, S, 3) by images of other groups of the batch.

    An intruder lacks its new group's object, so its mask is empty.
    """
    key = jax.random.fold_in(key, 2 * valid.size)  # smaller numbers belong to single images
    happens, which = jax.random.split(key)
    places = jnp.arange(valid.size)
    other = jax.random.randint(which, places.shape, 0, valid.size)
    group = places // valid.shape[-1]
    happens = jax.random.bernoulli(happens, probability, places.shape)
    happens &= valid.reshape(-1)[other] & (group[other] != group)
    images, masks = (x.reshape(valid.size, *x.shape[3:]) for x in (image, mask))
    images = jnp.where(happens[:, None, None, None], images[other], images)
    masks = jnp.where(happens[:, None, None], 0, masks)
    return images.reshape(image.shape), masks.reshape(mask.shape)


def join(
    key: jax.Array, image: jax.Array, mask: jax.Array, other: jax.Array, other_mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Join two uint8 images and their masks, side by side or stacked, each squeezed to fit."""
    size = image.shape[0]
    keys = jax.random.split(key, 3)
    part = jax.random.uniform(keys[0], minval=LEAST_OWN, maxval=MOST_OWN)
    own_first, across = jax.random.bernoulli(keys[1]), jax.random.bernoulli(keys[2])
    end = size * jnp.where(own_first, part, 1 - part)
    centre = jnp.arange(size, dtype=jnp.float32) + 0.5
    first = centre < end
    source = jnp.where(first, centre / end, (centre - end) / (size - end)) * size - 0.5
    low = jnp.clip(jnp.floor(source), 0, size - 2)
    weight = jnp.clip(source - low, 0, 1)[:, None, None]
    low = low.astype(jnp.int32)

    def squeezed(image: jax.Array, mask: jax.Array) -> jax.Array:
        both = jnp.concatenate([image, mask[..., None]], axis=-1).astype(jnp.float32)
        both = jnp.where(across, both.swapaxes(0, 1), both)
        return (1 - weight) * both[low] + weight * both[low + 1]

    own = (first == own_first)[:, None, None]
    both = jnp.where(own, squeezed(image, mask), squeezed(other, other_mask))
    both = jnp.where(across, both.swapaxes(0, 1), both).round().astype(jnp.uint8)
    return both[..., :3], both[..., 3]
