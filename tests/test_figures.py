"""The figures: what is drawn equals the outputs, gradients and images of the network."""

import copy
import json
import re

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

import minicnn as mc
from minicnn import nn
from minicnn.backend.arrays import to_device
from minicnn.cli.figures import main
from minicnn.data import DataError, EvenSample, FashionMNIST
from minicnn.data.transforms import CenterCrop, Compose, Normalize
from minicnn.examples.alexnet import alexnet
from minicnn.inspect.activations import capture_activations
from minicnn.train.checkpoint_manager import CheckpointManager
from minicnn.train.evaluation import predict
from minicnn.train.features import features
from minicnn.visualize import figures

TRUE_CLASS = "#e8836b"


def network(C=1, side=8, classes=4, dtype=np.float32, device="cpu"):
    """A small network with all kinds of layers."""
    model = nn.Sequential(conv1=nn.Conv2d(C, 6, 3, padding=1), relu1=nn.ReLU(), norm1=nn.LocalResponseNorm(3), pool1=nn.MaxPool2d(2),
                          flatten=nn.Flatten(), fc2=nn.Linear(6 * (side // 2) ** 2, 16), relu2=nn.ReLU(), drop2=nn.Dropout(0.5),
                          fc3=nn.Linear(16, classes))
    mc.nn.init.kaiming_(model)
    for p in model.parameters():
        p.data = p.data.astype(dtype)
    return model.to(device)


@pytest.fixture(scope="module")
def fashion():
    """400 images of Fashion-MNIST, and the transform to inputs."""
    return EvenSample(FashionMNIST("train"), 400), Compose(Normalize(72.0, 90.0))


@pytest.fixture(scope="module")
def trained(fashion):
    """(model, optimizer) of `mini` after 12 training steps."""
    dataset, transform = fashion
    mc.seed(0)
    model = alexnet("mini", 10, 1)
    mc.nn.init.kaiming_(model)
    optimizer = mc.optim.SGD(model.parameters(), 0.01, 0.9, 1e-3)
    for images, labels in mc.data.DataLoader(dataset, 32, transform, drop_last=True):
        loss = mc.ops.cross_entropy(model(mc.Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def one(fashion, i):
    """(image (H, W, 1), input (1, H, W), label) of image i."""
    image, label = fashion[0][i]
    return image, fashion[1](image).transpose(2, 0, 1), label


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def panel(figure, label):
    """The axes with this label."""
    (axes,) = (a for a in figure.axes if a.get_label() == label)
    return axes


def drawn(axes):
    """The array that imshow got."""
    return np.asarray(axes.get_images()[0].get_array())


def texts(figure):
    """All text in the figure."""
    from matplotlib.text import Text
    return "\n".join(t.get_text() for t in figure.findobj(Text))


# ---- saliency

@pytest.mark.parametrize("C", [1, 3])
def test_saliency_is_the_gradient_of_the_score(C, tmp_path):
    """By finite differences at the brightest pixel, and there it is the channel with the largest gradient."""
    model, x = network(C, dtype=np.float64).eval(), noise(C, 8, 8).astype(np.float64)
    image = np.zeros((8, 8, C), np.uint8)
    figure = figures.saliency(model, x, 2, image, tmp_path / "a.png", ["a", "b", "$c", "d"])
    left, right, _bar = figure.axes
    assert drawn(left).shape == ((8, 8) if C == 1 else (8, 8, 3))
    saliency = drawn(right)
    np.testing.assert_array_equal(saliency, figures.saliency_map(model, x, 2))
    h, w = np.unravel_index(saliency.argmax(), saliency.shape)

    def score(c, step):
        moved = x.copy()
        moved[c, h, w] += step
        return model(mc.Tensor(moved[None])).data[0, 2]

    slopes = [abs(score(c, 1e-6) - score(c, -1e-6)) / 2e-6 for c in range(C)]
    assert saliency[h, w] == pytest.approx(max(slopes), rel=1e-6)
    assert right.get_images()[0].get_clim() == (0, pytest.approx(saliency.max()))
    assert "$c" in texts(figure)


def test_saliency_of_a_linear_network_is_its_weights(device):
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 3, 5)).to(device)
    w = model[1].weight.numpy().reshape(5, 2, 3, 3)
    for label in range(5):
        np.testing.assert_allclose(figures.saliency_map(model, to_device(noise(2, 3, 3), device), label), np.abs(w[label]).max(axis=0))
    assert all(p.grad is None for p in model.parameters())


# ---- occlusion

class SquareDetector(nn.Module):
    """Predicts class 1 if the pixels of one square are bright, else class 0."""

    def __init__(self, top, left, size, side):
        self.mask = np.zeros((1, side, side), np.float32)
        self.mask[:, top:top + size, left:left + size] = 1

    def forward(self, x):
        score = (x * self.mask).sum(axis=(1, 2, 3))
        return (score - 4.0).reshape(-1, 1) * np.array([[-1, 1]], np.float32)


def test_occlusion_finds_the_pixels_that_the_class_depends_on(tmp_path):
    model, x = SquareDetector(9, 4, 3, 16), np.ones((1, 16, 16), np.float32)
    figure = figures.occlusion(model, x, 1, np.full((16, 16, 1), 200, np.uint8), tmp_path / "a.png", patch_size=3, stride=1,
                               classes=["dark", "bright"])
    maps = figures.occlusion_map(model, x, 3, 1)
    assert maps.shape == (16, 16, 2)
    np.testing.assert_allclose(maps.sum(axis=2), 1, rtol=1e-6)
    assert np.unravel_index(maps[..., 1].argmin(), (16, 16)) == (10, 5)         # the centre of the square
    for row in range(16):                                                       # covered pixels count one less each
        for column in range(16):
            left = 9 - max(0, 3 - abs(row - 10)) * max(0, 3 - abs(column - 5))
            assert maps[row, column, 1] == pytest.approx(1 / (1 + np.exp(-2 * (left - 4))), rel=1e-5)
    image, chart, predicted = figure.axes[:3]
    np.testing.assert_array_equal(drawn(chart), maps[..., 1])
    (square,) = image.patches
    assert (square.get_x(), square.get_y(), square.get_width()) == (3.5, 8.5, 3)
    blue, red = (matplotlib.colors.to_rgb(c) for c in ("#4477aa", "#ee6677"))
    for row, column in ((10, 5), (0, 0)):
        assert tuple(drawn(predicted)[row, column]) == pytest.approx(red if maps[row, column, 1] < 0.5 else blue)
    assert "bright" in [t.get_text() for t in predicted.get_legend().get_texts()]


def test_occlusion_map_for_any_batch_size_on_either_device(device):
    x, model = noise(3, 10, 13), network(3, 8, device=device)
    model = nn.Sequential(conv=model.conv1, pool=nn.AdaptiveAvgPool2d(2), flatten=nn.Flatten(), fc=nn.Linear(24, 3).to(device))
    maps = figures.occlusion_map(model, to_device(x, device), patch_size=4, stride=3, batch_size=7)
    assert maps.shape == (4, 5, 3)                                              # the last row and column of blocks are cut off
    np.testing.assert_allclose(maps, figures.occlusion_map(model, x, 4, 3, batch_size=1), rtol=1e-5)
    covered = x.copy()
    covered[:, 2:6, 5:9] = 0                                                    # block (1, 2): rows 3 to 5, columns 6 to 8
    logits = model(mc.Tensor(to_device(covered[None], device)))
    np.testing.assert_allclose(maps[1, 2], mc.ops.softmax(logits).numpy()[0], rtol=1e-4)


@pytest.mark.parametrize("bad, words", [
    ({"patch_size": 0}, "patch_size must be a number of pixels from 1 to 8 for an image of 8 x 8, got 0"),
    ({"stride": 9}, "stride must be a number of pixels from 1 to 8 for an image of 8 x 8, got 9"),
    ({"label": 4}, "label must be a class, 0 to 3, got 4"), ({"x": np.zeros((2, 1, 8, 8))}, "take one: x"),
    ({"image": np.zeros((9, 8, 1), np.uint8)}, "image must be as large as the network's input, 8 x 8 pixels, got 9 x 8")])
def test_occlusion_errors(bad, words, tmp_path):
    good = {"x": noise(1, 8, 8), "label": 0, "image": np.zeros((8, 8, 1), np.uint8), "path": tmp_path / "a.png"}
    with pytest.raises(ValueError, match=words):
        figures.occlusion(network(), **{**good, **bad})
    assert not (tmp_path / "a.png").exists()


# ---- feature maps

def cell(grid, count, i, shape):
    """Tile i of a grid: located by the gaps of NaN between the tiles, and its enlargement undone."""
    empty_rows = np.flatnonzero(np.isnan(grid).all(axis=1)).tolist()
    empty_columns = np.flatnonzero(np.isnan(grid).all(axis=0)).tolist()
    rows = np.split(np.arange(grid.shape[0]), empty_rows)
    columns = np.split(np.arange(grid.shape[1]), empty_columns)
    rows = [r for r in ([n for n in some if n not in empty_rows] for some in rows) if r]
    columns = [c for c in ([n for n in some if n not in empty_columns] for some in columns) if c]
    assert len(rows) * len(columns) >= count
    tile = grid[np.ix_(rows[i // len(columns)], columns[i % len(columns)])]
    zoom = tile.shape[0] // shape[0]
    assert tile.shape == (shape[0] * zoom, shape[1] * zoom)
    return tile[::zoom, ::zoom]


def test_feature_maps_are_the_outputs_of_every_layer(fashion, trained, tmp_path):
    image, x, _ = one(fashion, 7)
    model, _ = trained
    figure = figures.feature_maps(model, x, tmp_path / "a.png", image)
    layers = capture_activations(model, x[None]).layers
    names = [name for name in layers if not name.startswith("drop")]
    assert [a.get_label() for a in figure.axes] == ["image", "input", *names]
    np.testing.assert_array_equal(drawn(figure.axes[0]), image[..., 0])
    assert "drop6, drop7" in texts(figure)
    for name in names:
        axes, output = panel(figure, name), layers[name].output[0]
        grid = drawn(axes).astype(np.float32)
        grid[np.ma.getmaskarray(axes.get_images()[0].get_array())] = np.nan
        if output.ndim == 3:
            for i in (0, 1, len(output) - 1):
                np.testing.assert_array_equal(cell(grid, len(output), i, output.shape[1:]), output[i])
        else:
            np.testing.assert_array_equal(grid.ravel()[:output.size], output)
        low, high = axes.get_images()[0].get_clim()
        assert low == -high                                                     # white is 0
        assert 0 < high <= np.abs(output).max() * 1.0001
        assert axes.get_title(loc="left") == (f"{name}   {' × '.join(map(str, output.shape))}   "
                                              f"{output.min():.2g} … {output.max():.2g}")


def test_panels_neither_overlap_nor_leave_the_page(tmp_path):
    figure = figures.feature_maps(network(3), noise(3, 8, 8), tmp_path / "a.png", np.zeros((30, 50, 3), np.uint8))
    boxes = [a.get_position() for a in figure.axes]
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= 1 and b.y1 <= 1 for b in boxes)
    assert not any(a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1 for i, a in enumerate(boxes) for b in boxes[:i])


def test_feature_maps_of_full_size_alexnet(tmp_path, monkeypatch):
    monkeypatch.setattr(mc.nn.init, "kaiming_normal_", lambda w: w.data.fill(0.01))      # faster than 60 million random numbers
    model = alexnet("torchvision", 4, 3)
    figure = figures.feature_maps(model, noise(3, 224, 224), tmp_path / "a.png")
    assert panel(figure, "conv1").get_title(loc="left").startswith("conv1   64 × 55 × 55")
    assert panel(figure, "fc7").get_title(loc="left").startswith("fc7   4096")
    with Image.open(tmp_path / "a.png") as png:
        assert png.width == 1560


# ---- histograms

def test_update_ratios_predict_the_next_step_of_the_optimizer(fashion, trained, tmp_path):
    """Compared with a real step of the same optimizer on the gradients of the same batch."""
    model, optimizer = trained
    images, labels = next(iter(mc.data.DataLoader(fashion[0], 16, fashion[1])))
    before = copy.deepcopy([p.data for p in model.parameters()])
    rows = figures.update_ratios(model, optimizer, images, labels)
    assert all(np.array_equal(p.data, b) and p.grad is None for p, b in zip(model.parameters(), before, strict=True))
    assert [row.name for row in rows] == [name for name, _ in model.named_parameters()]

    twin, twins = copy.deepcopy((model, optimizer))
    gradients = capture_activations(twin, images, labels, training=True).parameters
    for name, p in twin.named_parameters():
        p.grad = gradients[name][1]
    assert [id(p) for p in twins.params] == [id(p) for p in twin.parameters()]
    twins.step()
    for row, p, old in zip(rows, twin.parameters(), before, strict=True):
        change = p.data - old
        step = max(1, change.size // 200_000)
        np.testing.assert_allclose(row.update, change.reshape(-1)[::step], atol=1e-6)
        assert row.ratio == pytest.approx(np.linalg.norm(change) / np.linalg.norm(old), rel=1e-3)
        np.testing.assert_array_equal(row.gradient, p.grad.reshape(-1)[::step])
        assert row.zero_fraction == pytest.approx(np.mean(p.grad == 0))

    figure = figures.histograms(model, optimizer, images, labels, tmp_path / "a.png")
    left, middle, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == [row.name for row in rows]
    dots = [line.get_xydata()[0] for line in right.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(dots, [(row.ratio, y) for y, row in enumerate(rows)])
    assert any(np.allclose(line.get_xdata(), 1e-3) for line in right.get_lines())
    medians = [line.get_xdata()[0] for line in middle.get_lines() if line.get_color() == "black"]
    np.testing.assert_allclose(medians, [np.median(np.log10(np.abs(row.update[row.update != 0]))) for row in rows], atol=1e-6)
    assert "learning rate 0.01, momentum 0.9" in texts(figure)


def test_updates_of_plain_sgd_and_of_parameters_without_gradient_or_optimizer(device, tmp_path):
    model = network(device=device)
    model.conv1.bias.data[...] = 0
    x = to_device(noise(4, 1, 8, 8), device)
    rows = {row.name: row for row in figures.update_ratios(model, 0.5, x, [0, 1, 2, 3])}
    for row in rows.values():
        np.testing.assert_allclose(row.update, -0.5 * row.gradient, rtol=1e-6)
    assert np.isnan(rows["conv1.bias"].ratio)                                    # all weights are 0
    some = mc.optim.SGD(model.fc3.parameters(), 0.1)
    rows = {row.name: row for row in figures.update_ratios(model, some, x, [0, 1, 2, 3])}
    assert len(rows["conv1.weight"].update) == 0 < len(rows["conv1.weight"].gradient)
    assert len(rows["fc3.weight"].update) == 64
    model.unused = nn.Linear(3, 3).to(device)
    figure = figures.histograms(model, 0.5, x, [0, 1, 2, 3], tmp_path / "a.png")
    assert texts(figure).count("no gradient") == 2
    assert "all weights are 0" in texts(figure)
    with pytest.raises(ValueError, match="lr must be a positive finite number"):
        figures.update_ratios(model, 0.0, x, [0, 1, 2, 3])


class SignDescent(mc.optim.Optimizer):
    """A user's optimizer: a fixed step against the sign of the gradient. It keeps no velocities and no last update."""

    def __init__(self, params, lr, clip=None, betas=(0.9, 0.99)):
        super().__init__(params, {"lr": lr, "clip": clip, "betas": betas})

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data -= group["lr"] * np.sign(p.grad)


class SignDescentWithUpdates(SignDescent):
    """The same, and it provides its last update."""

    def last_update(self, i):
        return -self.param_groups[0]["lr"] * np.sign(self.params[i].data)


def test_histograms_for_an_optimizer_without_velocities(tmp_path):
    model, x, labels = network(), noise(4, 1, 8, 8), [0, 1, 2, 3]
    optimizer = SignDescent(model.parameters(), 0.01)
    assert not hasattr(optimizer, "velocities")
    rows = figures.update_ratios(model, optimizer, x, labels)
    assert all(len(row.gradient) and not len(row.update) and np.isnan(row.ratio) for row in rows)
    figure = figures.histograms(model, optimizer, x, labels, tmp_path / "a.png")
    assert texts(figure).count("update unknown") == len(rows)
    assert "learning rate 0.01, clip None, betas (0.9, 0.99)" in texts(figure)

    rows = figures.update_ratios(model, SignDescentWithUpdates(model.parameters(), 0.01), x, labels)
    for row, p in zip(rows, model.parameters(), strict=True):
        np.testing.assert_array_equal(row.update, -0.01 * np.sign(p.data.reshape(-1)))
        if p.data.any():
            assert row.ratio == pytest.approx(np.linalg.norm(0.01 * np.sign(p.data)) / np.linalg.norm(p.data), rel=1e-5)


# ---- predictions

def test_bars_are_the_probabilities_and_the_true_class_is_red(tmp_path):
    rng = np.random.default_rng(3)
    classes = ["cat", "dog", "$x_1$", "a class with a very, very long name", "owl", "eel", "bat"]
    p = rng.dirichlet(np.ones(7), 5)
    labels = [0, 3, 2, int(p[3].argmin()), int(p[4].argmax())]
    images = [rng.integers(0, 256, (10 + i, 20, 3), np.uint8) for i in range(4)] + [np.zeros((8, 8, 1), np.uint8)]
    figure = figures.predictions(images, p, labels, classes, tmp_path / "a.png", columns=3)
    for n in range(5):
        image, bars = panel(figure, f"image {n}"), panel(figure, f"bars {n}")
        np.testing.assert_array_equal(drawn(image), images[n] if images[n].shape[2] == 3 else images[n][..., 0])
        best = np.argsort(-p[n])[:5]
        np.testing.assert_allclose([bar.get_width() for bar in bars.patches], p[n][best])
        assert bars.get_xlim() == (0, 1)
        assert [bar.get_facecolor() == matplotlib.colors.to_rgba(TRUE_CLASS) for bar in bars.patches] == [i == labels[n] for i in best]
        names = [t.get_text() for t in bars.texts][::2]
        assert [name.rstrip("…") for name in names] == [classes[i][:len(name.rstrip("…"))] for name, i in zip(names, best, strict=True)]
        percents = [t.get_text() for t in bars.texts][1::2]
        assert percents == [f"{100 * q:.0f} %" if q >= 0.005 else "< 0.5 %" for q in p[n][best]]
    assert panel(figure, "image 2").get_xlabel() == "$x_1$"
    assert f"accuracy {100 * np.mean(p.argmax(axis=1) == labels):.0f} % of 5 images" in texts(figure)
    few = figures.predictions(images[:1], [[0.25, 0.75]], [1], ["no", "yes"], tmp_path / "b.png")
    assert [bar.get_width() for bar in panel(few, "bars 0").patches] == [0.75, 0.25]
    with pytest.raises(ValueError, match=r"for 2 images, probabilities must be \(2, 7\) and labels \(2,\), got \(5, 7\) and \(5,\)"):
        figures.predictions(images[:2], p, labels, classes, tmp_path / "c.png")


# ---- features and nearest neighbours

def test_features_are_the_inputs_of_the_last_linear_layer(fashion, trained, device):
    dataset, transform = fashion
    model = copy.deepcopy(trained[0]).to(device)
    batches = list(features(model, EvenSample(dataset, 50), transform, batch_size=16))
    assert [len(numbers) for numbers, _ in batches] == [16, 16, 16, 2]
    found = np.concatenate([f for _, f in batches])
    images = np.stack([transform(EvenSample(dataset, 50)[i][0]) for i in range(50)]).transpose(0, 3, 1, 2)
    layers = capture_activations(model, to_device(images, device)).layers
    np.testing.assert_allclose(found, to_device(layers["relu7"].output, "cpu"), rtol=1e-4, atol=1e-5)
    ((_, named),) = features(model, EvenSample(dataset, 50), transform, "pool5")
    np.testing.assert_allclose(named, to_device(layers["pool5"].output, "cpu").reshape(50, -1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="this network has no layer 'fc9'; it has conv1, relu1"):
        next(features(model, dataset, transform, "fc9"))
    with pytest.raises(ValueError, match="no Linear layer; name the layer, one of 0, 1"):
        next(features(nn.Sequential(nn.Flatten(), nn.ReLU()), dataset, transform))


class OneUnreadable:
    """A data set with one unreadable image."""

    def __init__(self, dataset, bad):
        self.dataset, self.bad = dataset, bad

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        if i == self.bad:
            raise DataError(f"image {i} is no image")
        return self.dataset[i]


def test_nearest_images_against_a_full_sort(fashion, trained, tmp_path):
    dataset, transform = fashion
    model, _ = trained
    queries = [dataset[123], (np.full((28, 28, 1), 90, np.uint8), 5)]
    indices, distances = figures.nearest_images(model, queries, dataset, transform, batch_size=64)
    assert indices.shape == distances.shape == (2, 6)
    assert indices[0, 0] == 123
    assert distances[0, 0] == pytest.approx(0, abs=1e-4)
    every = np.concatenate([f for _, f in features(model, dataset, transform)])
    own = np.concatenate([f for _, f in features(model, queries, transform)])
    for q in range(2):
        true = np.linalg.norm(every - own[q], axis=1)
        np.testing.assert_allclose(distances[q], np.sort(true)[:6], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(true[indices[q]], distances[q], rtol=1e-3, atol=1e-4)

    figure = figures.nearest_neighbours(model, queries, dataset, transform, tmp_path / "a.png", classes=dataset.classes)
    for q in range(2):
        for column in range(7):
            axes = panel(figure, f"row {q} column {column}")
            image, label = dataset[int(indices[q, column - 1])] if column else queries[q]
            np.testing.assert_array_equal(drawn(axes), image[..., 0])
            name, _, distance = axes.get_xlabel().partition("\n")
            assert name == dataset.classes[label]
            assert axes.xaxis.label.get_color() == ("black" if label == queries[q][1] else "#cc3311")
            assert (float(distance) == pytest.approx(distances[q, column - 1], rel=0.01, abs=1e-3)) if column else not distance

    gaps = OneUnreadable(dataset, 122)                  # the images after an unreadable one keep their indices
    assert figures.nearest_images(model, queries[:1], gaps, transform)[0][0, 0] == 123
    with pytest.raises(DataError, match="image 1 is no image"):
        figures.nearest_images(model, OneUnreadable(queries, 1), dataset, transform)


def test_neighbours_are_drawn_resized_and_cropped(tmp_path):
    rng = np.random.default_rng(0)
    dataset = [(rng.integers(0, 256, (12, 16, 3), np.uint8), 0) for _ in range(3)]
    figure = figures.nearest_neighbours(network(3), dataset[1:2], dataset, Compose(CenterCrop(8), Normalize(128, 64)), tmp_path / "a.png")
    assert len(figure.axes) == 4                        # a data set of three has no six neighbours
    np.testing.assert_array_equal(drawn(panel(figure, "row 0 column 1")), dataset[1][0][2:10, 4:12])
    assert panel(figure, "row 0 column 0").get_xlabel() == "class 0"


# ---- curves, filters, confusion

def test_training_curves_show_the_log(tmp_path):
    records = [{"kind": "train", "step": s, "loss": 2.0 / s if s != 3 else None, "top1": 10.0 * s} for s in range(1, 6)]
    records.append({"kind": "val", "step": 5, "loss": 0.5, "top1": 61.0, "top5": 98.0})
    left, right = figures.training_curves(records, tmp_path / "a.png", "a $ run").axes
    np.testing.assert_array_equal(left.get_lines()[0].get_xydata(), [[1, 2], [2, 1], [3, np.nan], [4, 0.5], [5, 0.4]])
    assert right.get_lines()[2].get_xydata().tolist() == [[5, 61]]
    assert [t.get_text() for t in right.texts] == ["61.0 %"]
    assert figures.binned_mean([1, 2, 3, 4], [1, 3, 5, 7], bins=2)[1].tolist() == [2, 6]


def test_each_filter_is_scaled_to_its_own_largest_magnitude(tmp_path):
    w = noise(5, 3, 4, 4)
    axes = figures.filters(w, tmp_path / "a.png").axes
    for a, f in zip(axes, w, strict=False):
        np.testing.assert_allclose(drawn(a), 0.5 + 0.5 * f.transpose(1, 2, 0) / np.abs(f).max(), rtol=1e-6)
    assert drawn(figures.filters(w[:, :1], tmp_path / "b.png").axes[0]).shape == (4, 4)


def test_confusion_matrix_in_percent_of_the_true_class(tmp_path):
    figure = figures.confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), ["a", "$b"], tmp_path / "a.png")
    (axes,) = figure.axes
    np.testing.assert_allclose(drawn(axes), [[200 / 3, 100 / 3], [0, 100]])
    assert "4 images, accuracy 75.0 %" in texts(figure)


# ---- common

@pytest.mark.parametrize("image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)])
def test_images_must_be_uint8_grey_or_rgb(image, tmp_path):
    with pytest.raises(ValueError, match=r"an image must be a uint8 array \(H, W, 1\) or \(H, W, 3\)"):
        figures.saliency(network(), noise(1, 8, 8), 0, image, tmp_path / "a.png")


def test_without_matplotlib_the_error_gives_the_command_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match='python -m pip install "matplotlib>=3.8"'):
        figures.saliency(network(), noise(1, 8, 8), 0, np.zeros((8, 8, 1), np.uint8), tmp_path / "a.png")
    assert main([str(tmp_path)]) == 2


# ---- the command

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, model, data) of a short run of `mini`, as examples/train_alexnet.py would leave it."""
    from minicnn.examples import recipe
    mc.seed(0)
    folder = tmp_path_factory.mktemp("runs") / "run"
    args = recipe.parse(["--max-images", "80", "--batch-size", "8", "--device", "cpu", "--out", str(folder)], "")
    recipe.resolve_args(args)
    data = recipe.Data(args, None)
    model = alexnet("mini", 10, data.channels, data.side)
    optimizer = mc.optim.SGD(model.parameters(), args.lr, args.momentum, args.weight_decay)
    folder.mkdir()
    records = []
    for step, (images, labels) in enumerate(data.train.epoch(0), start=1):
        loss = mc.ops.cross_entropy(model(mc.Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        records.append({"kind": "train", "step": step, "loss": loss.item(), "top1": 0.0, "lr": args.lr})
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    rest = dict.fromkeys(recipe.CHECKPOINT_KEYS, 0)
    CheckpointManager(folder).save(10, **{**{k: v for k, v in rest.items() if k not in ("step", "best")}, "model": model.state_dict(),
                               "optimizer": optimizer.state_dict(), "classes": data.classes, "pixels": data.pixels,
                               "fingerprint": data.fingerprint, "arguments": {name: getattr(args, name) for name in recipe.CONFIG_KEYS}})
    return folder, model, data


def test_the_command_draws_all_figures(run, tmp_path, monkeypatch, capsys):
    folder, model, data = run
    drawings = {}

    def capture(name, **more):
        real = getattr(figures, name)

        def spy(*args, **kwargs):
            drawings[name] = real(*args, **kwargs, **more)
            return drawings[name]
        monkeypatch.setattr(figures, name, spy)

    for name in ("saliency", "predictions", "feature_maps"):
        capture(name)
    capture("occlusion", stride=7)                 # faster
    assert main([str(folder), "--image", "5", "--max-images", "60", "--out", str(tmp_path / "out")]) == 0
    files = ["curves", "filters", "histograms", "feature_maps", "saliency", "occlusion", "predictions", "confusion", "nearest"]
    assert sorted(p.stem for p in (tmp_path / "out").iterdir()) == sorted(files)
    out = capsys.readouterr().out
    assert re.findall(r"(\w+)\.png", out) == files

    image, label = data.validation[5]
    x = data.test_transform(image).transpose(2, 0, 1)
    np.testing.assert_allclose(drawn(drawings["saliency"].axes[1]), figures.saliency_map(model, x, label), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(drawn(panel(drawings["predictions"], "image 0")), image[..., 0])
    p = predict(model, [(image, label)], data.test_transform)[0][0]
    bars = panel(drawings["predictions"], "bars 0").patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], np.sort(p)[::-1][:5], rtol=1e-4)
    assert f"test image 5, {data.classes[label]}" in texts(drawings["feature_maps"])


@pytest.mark.parametrize("args, words", [
    (["--image", "80"], "must be the index of a test image, 0 to 79, got 80"),
    (["--max-images", "0"], "--max-images must be at least 1, got 0"),
    (["--out", "{run}/log.jsonl"], "log.jsonl")])
def test_the_command_reports_errors(run, args, words, capsys):
    assert main([str(run[0]), *(a.format(run=run[0]) for a in args)]) == 2
    assert words in capsys.readouterr().err


def test_the_command_needs_a_run(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
