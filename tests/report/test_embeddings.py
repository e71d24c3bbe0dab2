"""Pictures of an export: right places, right shares, shapes beside colours, and no ids."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clue_jax import files
from clue_jax.embeddings.erase import erase
from clue_jax.embeddings.verify import verify
from clue_jax.errors import ConfigError, DataError
from clue_jax.report import plots
from clue_jax.report.labelled import LabelTable, read_categories
from clue_jax.report.page import write_report
from clue_jax.report.spread import plane_of, read_spread
from clue_jax.report.wanted import Wanted, wanted
from tests.embeddings.exports import random_users, unit, write_export, write_items_export
from tests.report.test_page import Outline, fill_evaluation, fill_run


def near_views(count=60):
    """Users whose two views are near, and far from those of others."""
    users = random_users(count)
    centre_N1E = users["embedding_NE"][:, None]
    users["z_NSE"] = unit(centre_N1E + 0.1 * users["z_NSE"])
    users["counts_NS"][:] = 3
    return users


def write_labels(folder, users, column="kind", values=("a <b>", "c", "d")):
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [values[n % len(values)] for n in range(len(users["user_ids"]))]
    table = pa.table({"user_id": users["user_ids"].tolist(), column: drawn})
    pq.write_table(table, folder / "part-0.parquet")
    return LabelTable(str(folder), column)


def test_the_plane_is_that_of_most_variance():
    rng = np.random.default_rng(0)
    z_NE = rng.normal(size=(500, 6)) * [5, 1, 0.2, 0.2, 3, 0.2] + 7
    points_N2, shares = plane_of(z_NE)
    np.testing.assert_allclose(np.abs(np.corrcoef(points_N2[:, 0], z_NE[:, 0])[0, 1]), 1, atol=0.01)
    np.testing.assert_allclose(np.abs(np.corrcoef(points_N2[:, 1], z_NE[:, 4])[0, 1]), 1, atol=0.01)
    eigenvalues = np.linalg.eigvalsh(np.cov(z_NE.T))[::-1]
    np.testing.assert_allclose(shares, eigenvalues[:2] / eigenvalues.sum())
    # Who turns all vectors round sees the picture turned round, and not another one.
    np.testing.assert_allclose(plane_of(z_NE)[0], points_N2)
    np.testing.assert_allclose(np.abs(plane_of(-z_NE)[0]), np.abs(points_N2), atol=1e-9)


def test_views_of_a_user_are_told_from_those_of_others(tmp_path):
    write_export(tmp_path, near_views())
    spread = read_spread(tmp_path, {})
    same, other = spread.cosines["same user"], spread.cosines["different users"]
    assert (len(same), len(other)) == (60, 60 * 59)
    assert same.min() > 0.8 and abs(np.median(other)) < 0.2 and spread.means.min() > 0.9
    (by_service,) = spread.maps
    assert by_service.names == ("art", "office") and len(by_service.points_N2) == 120
    # Lines join points that are on the map, each a user's own two.
    places = {tuple(point) for point in by_service.points_N2}
    assert len(by_service.ties_M4) == 20
    for tie in by_service.ties_M4:
        assert {tuple(tie[:2]), tuple(tie[2:])} <= places
        assert np.linalg.norm(tie[:2] - tie[2:]) < 0.3


def test_users_of_one_service_alone_are_drawn_once(tmp_path):
    users = random_users(40)
    users["counts_NS"][:] = [3, 0]
    write_export(tmp_path, users)
    spread = read_spread(tmp_path, {})
    assert len(spread.maps[0].points_N2) == 40 and not len(spread.maps[0].ties_M4)
    assert spread.cosines == {} and not len(spread.means)
    assert "By service" in write_report(tmp_path).read_text()


def test_a_large_export_gives_a_small_page(tmp_path):
    write_export(tmp_path, random_users(5_000, services=("a", "b", "c")), parts=5)
    page = write_report(tmp_path).read_text()
    assert len(page) < 200_000 and "5,000 users of 8 dimensions" in page
    assert 800 < len(read_spread(tmp_path, {}).maps[0].points_N2) <= plots.GROUPS * 900


def test_the_page_of_an_export_has_no_ids_and_leaves_it_whole(tmp_path):
    users = near_views()
    write_export(tmp_path, users)
    labels = write_labels(tmp_path.parent / "labels", users)
    path = write_report(tmp_path, Wanted(labels))
    page = path.read_text()
    outline = Outline(page)
    assert "user-" not in page and "a <b> (20)" in outline.text
    pictures = [of for tag, of in outline.tags if tag == "svg"]
    shown = [of["aria-label"] for of in pictures if of.get("role") == "img"]
    assert len(shown) == 6 and all(
        of.get("role") == "img" or of.get("aria-hidden") == "true" for of in pictures
    )
    assert shown[0].startswith("By service: 120 points (60 art, 60 office)")
    assert not re.search(r"\bnan\b|\binf\b", page)
    # What is not named in its manifest would be in the way of erasures.
    assert path.name == f"{tmp_path.name}.report.html" and path.parent == tmp_path.parent
    assert verify(tmp_path) and erase(tmp_path, ["user-3"]).erased == ["user-3"]


def test_groups_differ_in_shape_and_others_are_small():
    points_N2 = np.random.default_rng(0).normal(size=(70, 2))
    groups_N = np.arange(70) % 7 - 1
    names = tuple("abcdef")
    picture = plots.plane("Map", points_N2, groups_N, names, np.zeros((0, 4)))
    paths = {path.get("class"): path for path in ET.fromstring(picture).findall("path")}
    assert set(paths) == {"others", *(f"g g{k}" for k in range(6))}
    shapes = {re.split(r"M[-\d.]+ [-\d.]+", paths[f"g g{k}"].get("d"))[1] for k in range(6)}
    assert len(shapes) == 6
    numbers = [float(x) for p in paths.values() for x in re.findall(r"M([\d.]+) ", p.get("d"))]
    assert len(numbers) >= 70 and min(numbers) >= 0 and max(numbers) <= plots.WIDTH


def test_a_histogram_sums_to_one_and_is_drawn_inside():
    edges = np.linspace(-1, 1, 21)
    rows = plots.binned({"x": np.linspace(-1, 1, 99), "y": np.full(5, 1.0)}, edges)
    assert [row.shares.sum() for row in rows] == pytest.approx([1, 1])
    assert rows[1].shares[-1] == 1 and rows[0].median == pytest.approx(0)
    picture = ET.fromstring(plots.histogram_chart("Cosines", "cosine", edges, rows))
    assert "y with a median of 1" in picture.get("aria-label")
    heights = [
        float(y) for p in picture.findall("path") for y in re.findall(r" ([\d.]+)H", p.get("d"))
    ]
    assert min(heights) == plots.TOP and max(heights) <= plots.HISTOGRAM_HEIGHT - plots.BOTTOM


# ---------------------------------------------------------------------------------------- labels


def test_the_most_frequent_labels_have_colours(tmp_path):
    users = near_views(90)
    write_export(tmp_path / "users", users)
    values = ["a", "a", "a", *"bcdefghi"]  # eight more, of which no map has colours for all
    labels = write_labels(tmp_path / "labels", users, values=values)
    by_label = read_spread(tmp_path / "users", {"kind": read_categories(labels)}).maps[1]
    assert by_label.by == "kind" and len(by_label.names) == plots.GROUPS
    counts = [int((by_label.groups_N == k).sum()) for k in range(plots.GROUPS)]
    assert by_label.names[0] == "a" and counts[0] == max(counts) == 26
    assert (by_label.groups_N == -1).sum() == 90 - sum(counts)


def test_labels_that_cannot_be_shown_are_refused(tmp_path):
    users = near_views()
    labels = write_labels(tmp_path / "labels", users, values=[str(n) for n in range(60)])
    with pytest.raises(DataError, match="'kind' has 60 distinct values"):
        read_categories(labels)
    with pytest.raises(DataError, match="no column 'other'; it has user_id, kind"):
        read_categories(LabelTable(labels.path, "other"))
    with pytest.raises(DataError, match="nowhere: no Parquet table"):
        read_categories(LabelTable(str(tmp_path / "nowhere"), "kind"))
    (tmp_path / "torn.parquet").write_text("torn")
    with pytest.raises(DataError, match=r"torn\.parquet: not readable"):
        read_categories(LabelTable(str(tmp_path / "torn.parquet"), "kind"))


def test_a_table_names_its_column():
    assert wanted().labels is None
    assert wanted("labels/kind").labels == LabelTable("labels/kind", "kind")
    assert wanted("labels/kind.parquet").labels == LabelTable("labels/kind.parquet", "kind")
    assert wanted("labels/kind", "x").labels == LabelTable("labels/kind", "x")
    with pytest.raises(ConfigError, match="--labels=TABLE"):
        wanted("", "x")


def test_flags_are_words(tmp_path):
    users = near_views(4)
    labels = write_labels(tmp_path / "labels", users, values=(True, False))
    assert set(read_categories(labels).values()) == {"yes", "no"}


# --------------------------------------------------------------------------- where an export lies


def test_a_quickstart_shows_its_export_by_what_users_like(tmp_path):
    users = near_views()
    fill_run(tmp_path / "run")
    write_export(tmp_path / "embeddings", users)
    write_labels(tmp_path / "logs" / "labels" / "favourite", users, "favourite")
    text = Outline(write_report(tmp_path).read_text()).text
    assert "By service" in text and "By favourite" in text and "Training" in text
    (tmp_path / "embeddings" / "manifest.json").unlink()  # not finished
    assert "By service" not in write_report(tmp_path).read_text()


def test_tasks_colour_the_map_of_what_was_evaluated(tmp_path):
    users, folder = near_views(), tmp_path / "tasks"
    manifest = write_export(tmp_path / "users", users)
    write_labels(tmp_path / "labels" / "kinds", users)
    fill_evaluation(folder)
    task = {"name": "k", "kind": "multiclass", "labels": "kinds", "label": "kind"}
    spend = task | {"kind": "regression", "label": "spend"}
    tasks = [of | {"user_id": "user_id"} for of in (task, spend)]
    downstream = {"labels": str(tmp_path / "labels"), "tasks": tasks}
    files.write_json(folder / "config.json", {"downstream": downstream})
    seal = manifest["manifest_sha256"]
    evaluated = {"embeddings": str(tmp_path / "users"), "embeddings_manifest_sha256": seal}
    files.write_json(folder / "evaluated.json", evaluated)
    text = Outline(write_report(folder).read_text()).text
    assert "By kind" in text and "By spend" not in text
    # Labels that nobody named are no reason to have no page.
    torn = tmp_path / "labels" / "kinds" / "part-0.parquet"
    whole = torn.read_bytes()
    torn.write_bytes(b"torn")
    assert "All results" in write_report(folder).read_text()
    with pytest.raises(DataError, match="not readable"):
        write_report(folder, wanted(str(torn.parent), "kind"))
    torn.write_bytes(whole)
    assert "By kind" in write_report(folder).read_text()
    # Another export may lie there by now.
    files.write_json(folder / "evaluated.json", evaluated | {"embeddings_manifest_sha256": "0"})
    assert "By kind" not in write_report(folder).read_text()


def test_items_are_shown_by_service(tmp_path):
    write_items_export(tmp_path)
    text = Outline(write_report(tmp_path).read_text()).text
    assert "5 items of 8 dimensions" in text and "By service" in text and "art (5)" in text


@pytest.mark.parametrize("count", [1, 2, 30])
def test_few_users_and_collapsed_ones_have_a_page(tmp_path, count):
    users = random_users(count)
    users["embedding_NE"][:] = users["embedding_NE"][0]
    users["z_NSE"][:] = users["z_NSE"][0, 0]
    users["counts_NS"][:] = 3
    write_export(tmp_path, users, parts=1)
    page = write_report(tmp_path).read_text()
    assert not re.search(r"\bnan\b|\binf\b", page)
    assert ("By service" in page) == (2 * count >= 3)
