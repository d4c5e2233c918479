import numpy as np

from steelseg.scoring.component_recall import by_size, measure_components


def draw_mask(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_components_are_measured_with_what_is_predicted_of_them():
    """Corners connect; a predicted pixel beside the truth counts for none."""
    truth = draw_mask("#...##", ".#....", "......")
    mask = draw_mask("#....#", "......", "######")

    assert sorted(measure_components(mask, truth).tolist()) == [[2, 1], [2, 1]]
    assert measure_components(mask, np.zeros_like(truth)).shape == (0, 2)


def test_the_memory_order_does_not_matter():
    """Truth drawn from RLE is column-major."""
    truth = draw_mask("##.", "...", "..#")
    column_major = np.asfortranarray(truth)

    np.testing.assert_array_equal(
        measure_components(truth, column_major), measure_components(truth, truth)
    )


def test_quartiles_are_those_of_the_class():
    """Eight components, two a quarter; half of the large ones are found."""
    pixels = np.array([[a, 0 if a < 5 or a == 8 else a // 2] for a in range(1, 9)])

    quarters = by_size([pixels[:3], pixels[3:]])

    assert [(q["smallest"], q["largest"]) for q in quarters] == [(1, 2), (3, 4), (5, 6), (7, 8)]
    assert [(q["found"], q["components"]) for q in quarters] == [(0, 2), (0, 2), (2, 2), (1, 2)]
    assert quarters[2]["coverage"] == (2 / 5 + 3 / 6) / 2


def test_equal_sizes_are_one_quartile():
    """And no component at all is none."""
    (only,) = by_size([np.array([[4, 4], [4, 0]])])

    assert (only["components"], only["found"], only["coverage"]) == (2, 1, 0.5)
    assert by_size([]) == []
