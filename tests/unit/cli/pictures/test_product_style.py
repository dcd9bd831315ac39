"""A product looks the same in every picture, and no two products look alike."""

from __future__ import annotations

from energylens.cli.pictures.product_style import COLOURS, product_style
from energylens.data import load_gpus


def test_no_two_products_look_alike() -> None:
    styles = [product_style(product) for product in load_gpus()]
    assert len({(style.colour, style.marker) for style in styles}) == len(styles)


def test_the_products_most_often_compared_have_colours_of_their_own() -> None:
    short = ("H100", "H200", "B200", "A100", "L40S", "B300")
    labels = {gpu.name: label for label, gpu in load_gpus().items()}
    assert {product_style(labels[name]).colour for name in short} == set(range(COLOURS))


def test_an_unknown_product_keeps_its_style() -> None:
    assert product_style("NVIDIA-X1") == product_style("NVIDIA-X1")
    assert product_style("NVIDIA-X1").colour < COLOURS
