"""The network as an ONNX graph, with one function per module of `gconet_jax/models`.

Each function adds the nodes that compute the `__call__` of its module at inference. In the graph,
images are (N, C, H, W), as ONNX convolutions require, and batch norm is folded into convolutions.
Weights and convolutions are named by their path in the model, such as `decoder.top.first.conv`.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import helper, numpy_helper

from gconet_jax.inference.onnx_nodes import Feature, Graph
from gconet_jax.models.confidence import EXP_OVERFLOW, Branch, ConfidenceEnhancement
from gconet_jax.models.consensus import GroupAffinity
from gconet_jax.models.decoder import Block, Decoder, Stage, UpsamplingBlock
from gconet_jax.models.gconet_plus import IMAGE_MEAN, IMAGE_STD, GCoNetPlus
from gconet_jax.models.resnet import Bottleneck, ResNet50
from gconet_jax.models.vgg import VGG16
from gconet_jax.weights.folding import fold

INPUT = 'images'
OUTPUTS = ('map', 'prob', 'thresh')


def onnx_model(model: GCoNetPlus, *, image_size: int, opset: int) -> onnx.ModelProto:
    """Build the ONNX model for images of `image_size` x `image_size` pixels.

    Raises:
        InputError: the weights exceed the size limit of an ONNX file.
    """
    network = fold(model)
    graph = Graph(network)
    maps = segment(graph, network, image_size)
    for value, output in zip(maps, OUTPUTS, strict=True):
        graph.add('Squeeze', value, np.array([1]), output=output)
    shape = ('N', image_size, image_size)
    kind = onnx.TensorProto.FLOAT
    operators = helper.make_operatorsetid('', opset)
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            'gconet_plus',
            [helper.make_tensor_value_info(INPUT, kind, (*shape, 3))],
            [helper.make_tensor_value_info(name, kind, shape) for name in OUTPUTS],
            graph.constants,
        ),
        opset_imports=[operators],
        # The oldest version that supports the opset, because old programs reject newer ones.
        ir_version=helper.find_min_ir_version_for([operators]),
        producer_name='gconet-jax',
    )
    helper.set_model_props(proto, _properties(model, image_size))
    return proto


def _properties(model: GCoNetPlus, image_size: int) -> dict[str, str]:
    properties = {'image_size': str(image_size)}
    if model.cem is not None:
        properties |= {'k': str(model.cem.k), 'k_fallback': str(model.cem.k_fallback)}
    return properties


def segment(graph: Graph, model: GCoNetPlus, image_size: int) -> tuple[str, str, str]:
    """Add `GCoNetPlus.segment`; return M, P and T, (N, 1, S, S) each."""
    x1, x2, x3, x4, x5 = encode(graph, model, image_size)
    weighted = x5
    if model.gam is not None:
        shared = consensus(graph, group_affinity_module(graph, model.gam, x5))
        weighted = Feature(graph.add('Mul', x5.name, shared), x5.size)
    p1 = decoder(graph, model.decoder, weighted, (x1, x2, x3, x4), image_size)
    if model.cem is not None:
        return confidence_enhancement(graph, model.cem, p1)
    assert model.predict is not None
    prob = graph.add('Sigmoid', graph.conv(model.predict, p1))
    half = numpy_helper.from_array(np.array([0.5], np.float32))
    return prob, prob, graph.add('ConstantOfShape', graph.add('Shape', prob), value=half)


def encode(graph: Graph, model: GCoNetPlus, image_size: int) -> list[Feature]:
    """Add `gconet_plus.normalize` and `GCoNetPlus.encode`; return x1 to x5."""
    x = graph.add('Transpose', INPUT, perm=[0, 3, 1, 2])
    x = graph.add('Div', x, np.array(255, np.float32))
    x = graph.add('Sub', x, IMAGE_MEAN.reshape(3, 1, 1))
    x = graph.add('Div', x, IMAGE_STD.reshape(3, 1, 1))
    images = jax.ShapeDtypeStruct((1, 1, image_size, image_size, 3), jnp.float32)
    shapes = jax.eval_shape(model.encode, images, jax.ShapeDtypeStruct((1, 1), bool))
    if isinstance(model.backbone, VGG16):
        names = vgg(graph, model.backbone, x)
    else:
        names = resnet(graph, model.backbone, x)
    return [Feature(name, feature.shape[1]) for name, feature in zip(names, shapes, strict=True)]


def vgg(graph: Graph, backbone: VGG16, x: str) -> Iterable[str]:
    """Add `VGG16`; yield x1 to x5."""
    for index, stage in enumerate(backbone.stages):
        if index:
            x = graph.add('MaxPool', x, kernel_shape=[2, 2], strides=[2, 2])
        for layer in stage:
            x = graph.conv_norm_relu(layer, x)
        yield x


def resnet(graph: Graph, backbone: ResNet50, x: str) -> Iterable[str]:
    """Add `ResNet50`; yield x1 to x5."""
    for stage in backbone.stages:
        for layer in stage:
            if isinstance(layer, Bottleneck):
                x = bottleneck(graph, layer, x)
            else:
                x = graph.conv_norm_relu(layer, x)
        yield x


def bottleneck(graph: Graph, block: Bottleneck, x: str) -> str:
    """Add `resnet.Bottleneck`."""
    skip = x if block.skip is None else graph.conv_norm(block.skip, x)
    x = graph.conv_norm_relu(block.first, x)
    x = graph.conv_norm_relu(block.middle, x)
    return graph.add('Relu', graph.add('Add', graph.conv_norm(block.last, x), skip))


def group_affinity_module(graph: Graph, gam: GroupAffinity, x5: Feature) -> str:
    """Add `GroupAffinity`; return the attended features (N, C, h, w)."""
    channels = gam.value.kernel.shape[2]
    affinity = group_affinity(graph, gam, x5, channels)
    scores = graph.add('Mul', affinity, np.array(channels**-0.5, np.float32))
    attention = graph.add('Softmax', scores, axis=-1)
    attention = graph.add('Reshape', attention, np.array([-1, 1, x5.size, x5.size]))
    return graph.conv(gam.value, graph.add('Mul', x5.name, attention))


def group_affinity(graph: Graph, gam: GroupAffinity, x5: Feature, channels: int) -> str:
    """Add `affinity.group_affinity`; return the affinity (N, h·w).

    The queries of all images are compared one row at a time, so that only (N, N·w, h·w) of the
    whole similarity, (N, N·h·w, h·w), is in memory at once.
    """
    key = graph.conv(gam.key, x5.name)
    key = graph.add('Reshape', key, np.array([0, channels, -1]))  # (N, C, h·w)
    query = graph.conv(gam.query, x5.name)
    query = graph.add('Transpose', query, perm=[2, 0, 3, 1])  # (h, N, w, C)
    rows = []
    for row in range(x5.size):
        one = graph.add('Gather', query, np.array(row), axis=0)
        one = graph.add('Reshape', one, np.array([-1, channels]))  # (N·w, C)
        similarity = graph.add('MatMul', one, key)  # (N, N·w, h·w)
        best = graph.add('ReduceMax', similarity, np.array([2]), keepdims=0)
        mean = graph.add('ReduceMean', best, np.array([0]), keepdims=0)
        rows.append(graph.add('Reshape', mean, np.array([-1, x5.size])))  # (N, w)
    return graph.add('Concat', *rows, axis=1)


def consensus(graph: Graph, attended: str) -> str:
    """Add `consensus.consensus`; return (1, C, 1, 1)."""
    return graph.add('ReduceMean', attended, np.array([0, 2, 3]))


def decoder(
    graph: Graph, part: Decoder, x5: Feature, skips: tuple[Feature, ...], image_size: int
) -> str:
    """Add `Decoder`; return p1 (N, C, S, S)."""
    x = Feature(block(graph, part.top, x5.name), x5.size)
    for step, skip in zip(part.stages, reversed(skips), strict=True):
        x = stage(graph, step, x, skip)
    last = Feature(block(graph, part.last, x.name), x.size)
    return graph.resize(last, image_size).name


def stage(graph: Graph, part: Stage, x: Feature, skip: Feature) -> Feature:
    """Add `decoder.Stage`; return the sum with the lateral, at the size of `skip`."""
    name = graph.resize(Feature(block(graph, part.block, x.name), x.size), skip.size).name
    if part.after is not None:
        name = upsampling_block(graph, part.after, name)
    if isinstance(part.lateral, Block):
        lateral = block(graph, part.lateral, skip.name)
    else:
        lateral = graph.conv_norm(part.lateral, skip.name)
    return Feature(graph.add('Add', name, lateral), skip.size)


def block(graph: Graph, part: Block, x: str) -> str:
    """Add `decoder.Block`."""
    return graph.conv_norm(part.last, graph.conv_norm_relu(part.first, x))


def upsampling_block(graph: Graph, part: UpsamplingBlock, x: str) -> str:
    """Add `decoder.UpsamplingBlock`."""
    for layer in (part.first, part.middle, part.last):
        x = graph.conv_norm_relu(layer, x)
    return x


def confidence_enhancement(
    graph: Graph, cem: ConfidenceEnhancement, p1: str
) -> tuple[str, str, str]:
    """Add `ConfidenceEnhancement`; return M, P and T, (N, 1, S, S) each."""
    prob, thresh = branch(graph, cem.prob, p1), branch(graph, cem.thresh, p1)
    difference = graph.add('Sub', prob, thresh)
    k, k_fallback = np.array(cem.k, np.float32), np.array(cem.k_fallback, np.float32)
    largest = graph.add('ReduceMax', graph.add('Mul', difference, -k), keepdims=0)
    fell_back = graph.add('Greater', largest, np.array(EXP_OVERFLOW, np.float32))
    steepness = graph.add('Where', fell_back, k_fallback, k)
    return graph.add('Sigmoid', graph.add('Mul', difference, steepness)), prob, thresh


def branch(graph: Graph, part: Branch, p1: str) -> str:
    """Add `confidence.Branch`; return P or T, (N, 1, S, S)."""
    x = graph.conv_norm_relu(part.first, p1)
    x = graph.conv_norm_relu(part.second, x)
    return graph.add('Sigmoid', graph.conv(part.predict, x))
