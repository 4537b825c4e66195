"""Folders of images: labels are the places of the folders, pixels are what Pillow reads."""

import numpy as np
import pytest
from PIL import Image

from strop.core.errors import SamplesError
from strop.core.signature import Signature, TensorSpec
from strop.data import raw
from strop.data.raw import Preparation
from strop.data.reading import read


def signature(classes=3, *, size=(4, 6, 3), dtype="float32"):
    return Signature(
        (TensorSpec("image", (None, *size), dtype),),
        (TensorSpec("scores", (None, classes), "float32"),),
    )


def save(folder, name, colour, *, size=(6, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    """Three classes, their colours telling which is which."""
    save(tmp_path / "cat", "b.png", (10, 0, 0))
    save(tmp_path / "cat", "a.png", (11, 0, 0))
    save(tmp_path / "ant", "1.png", (20, 0, 0))
    save(tmp_path / "dog", "x.png", (30, 0, 0))
    return tmp_path


def reds(samples):
    return samples.inputs["image"][:, 0, 0, 0].tolist()


def test_labels_are_the_folders_in_order_and_images_lie_in_order_within(folder):
    found = read(folder, signature())
    assert reds(found.whole) == [20, 11, 10, 30]
    assert found.whole.targets["scores"].tolist() == [0, 1, 1, 2]
    assert found.notes == ("classes in order: ant, cat, dog",)


def test_a_class_without_images_keeps_its_number(folder):
    (folder / "bee").mkdir()
    found = read(folder, signature(4))
    assert found.whole.targets["scores"].tolist() == [0, 2, 2, 3]
    assert found.notes == (
        "classes in order: ant, bee, cat, dog",
        "of these classes there are no images: bee",
    )


def test_hidden_folders_and_files_are_no_classes_and_no_images(folder):
    save(folder / ".ipynb_checkpoints", "1.png", (99, 0, 0))
    (folder / "cat" / "._a.png").write_bytes(b"what macOS leaves")
    assert read(folder, signature()).whole.targets["scores"].tolist() == [0, 1, 1, 2]


def test_a_folder_too_few_is_told_with_the_way_out(folder):
    with pytest.raises(SamplesError) as caught:
        read(folder, signature(4))
    assert str(caught.value) == (
        f"the folder '{folder}' holds 3 folders (ant, cat, dog), and the output 'scores' tells 4 classes.\n"
        "The folders in alphabetical order are the classes from 0 on, so each class needs its folder, be it empty; "
        "images without folders have no labels.\n"
        f"  mkdir '{folder}/NAME'"
    )


def test_a_folder_too_many_is_told(folder):
    with pytest.raises(SamplesError, match=r"holds 3 folders .* tells 2 classes"):
        read(folder, signature(2))


def test_one_score_tells_two_classes(folder):
    with pytest.raises(SamplesError, match="tells 2 classes"):
        read(folder, signature(1))
    (folder / "dog" / "x.png").unlink()
    (folder / "dog").rmdir()
    assert read(folder, signature(1)).whole.targets["scores"].tolist() == [0, 1, 1]


def test_outputs_that_are_no_rows_of_known_width_are_not_held_to_folders(folder):
    assert len(read(folder, signature(None)).whole) == 4


def test_images_without_folders_have_no_labels(tmp_path):
    save(tmp_path, "1.png", (7, 0, 0))
    found = read(tmp_path, signature())
    assert reds(found.whole) == [7]
    assert found.whole.targets == {}
    assert found.notes == ()


def test_one_image_is_one_sample_without_a_label(folder):
    found = read(folder / "cat" / "a.png", signature())
    assert reds(found.whole) == [11]
    assert found.whole.targets == {}


def test_an_image_of_another_size_is_resized_as_pillow_resizes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 5, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "1.png")
    found = read(tmp_path, signature()).whole.inputs["image"][0]
    wanted = Image.fromarray(pixels).resize((6, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(wanted))


def test_one_channel_gets_the_greys(tmp_path):
    save(tmp_path, "1.png", (255, 0, 0))
    found = read(tmp_path, signature(size=(4, 6, 1))).whole.inputs["image"]
    assert found.shape == (1, 4, 6, 1)
    # Luma of pure red, ITU-R 601: 0.299 of 255.
    assert found[0, 0, 0, 0] == 76


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16"])
def test_pixels_come_as_the_input_takes_them(folder, dtype):
    found = read(folder, signature(dtype=dtype)).whole
    assert found.inputs["image"].dtype == dtype
    assert reds(found) == [20, 11, 10, 30]


def test_scaling_reaches_the_pixels(folder):
    found = read(folder, signature(), Preparation(scale=0.5)).whole
    assert reds(found) == [10, 5.5, 5, 15]


def test_more_than_there_is_room_for_are_drawn_and_told(folder, monkeypatch):
    monkeypatch.setattr(raw, "MOST_BYTES", 2 * 4 * 6 * 3 * 4 + 1)  # two images in float32
    found = read(folder, signature())
    assert len(found.whole) == 2
    assert found.notes[-1] == "of 4 images, 2 were drawn, which is what there is room for"


def test_an_image_that_is_none_is_named(folder):
    (folder / "dog" / "y.png").write_bytes(b"\x89PNG\r\n\x1a\nand then nothing of the kind")
    with pytest.raises(SamplesError, match=r"the image '.*y\.png' can't be read"):
        read(folder, signature())


def test_a_folder_without_images_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SamplesError, match="holds no images that are known"):
        read(tmp_path, signature())


def test_sizes_must_be_known(folder):
    with pytest.raises(SamplesError, match="--shape image=1,224,224,3"):
        read(folder, signature(size=(None, None, 3)))


@pytest.mark.parametrize("preparation", [Preparation(), Preparation(mode="caffe")])
def test_a_model_with_its_channels_first_gets_the_same_pixels(folder, preparation):
    last = read(folder, signature(), preparation).whole.inputs["image"]
    first = read(folder, signature(size=(3, 4, 6)), preparation).whole.inputs["image"]

    np.testing.assert_array_equal(first, np.moveaxis(last, -1, 1))


def test_sizes_must_be_known_where_channels_come_first_too(folder):
    with pytest.raises(SamplesError, match="--shape image=1,3,224,224"):
        read(folder, signature(size=(3, None, None)))
