import pytest
import torch

from ipvit.metrics import topk_correct


def plain_topk(row: list[float], label: int, k: int) -> bool:
    """The definition, one image at a time: sort classes by falling logit, then rising index."""
    if label < 0 or any(value != value for value in row):
        return False
    order = sorted(range(len(row)), key=lambda index: (-row[index], index))
    return label in order[:k]


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_top_k_agrees_with_sorting_even_when_logits_tie(k):
    random = torch.Generator().manual_seed(k)
    logits = torch.randint(0, 4, (300, 12), generator=random).float()
    labels = torch.randint(-1, 12, (300,), generator=random)
    expected = [plain_topk(row, int(label), k) for row, label in zip(logits.tolist(), labels, strict=True)]
    assert topk_correct(logits, labels, k).tolist() == expected


def test_top_1_is_the_argmax():
    logits = torch.randint(0, 3, (500, 10), generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    first_largest = [row.index(max(row)) for row in logits.tolist()]
    assert topk_correct(logits, torch.tensor(first_largest)).all()


def test_an_image_without_a_label_is_never_correct():
    assert not topk_correct(torch.ones(3, 4), torch.full((3,), -1), k=4).any()


def test_a_row_with_a_nan_is_never_correct():
    logits = torch.tensor([[float("nan"), 1.0], [1.0, float("nan")], [1.0, 0.0]])
    assert topk_correct(logits, torch.tensor([0, 0, 0]), k=2).tolist() == [False, False, True]


def test_infinite_logits_still_have_an_order():
    logits = torch.tensor([[float("inf"), 1.0], [float("-inf"), 1.0]])
    assert topk_correct(logits, torch.tensor([0, 0])).tolist() == [True, False]


def test_more_classes_asked_than_there_are_means_all():
    assert topk_correct(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), k=5).all()


def test_no_image_gives_no_answer():
    assert topk_correct(torch.empty(0, 5), torch.empty(0, dtype=torch.long)).shape == (0,)


@pytest.mark.parametrize("label", [3, -2])
def test_a_label_the_logits_do_not_know_is_refused(label):
    with pytest.raises(ValueError, match="labels must lie in"):
        topk_correct(torch.zeros(1, 3), torch.tensor([label]))


def test_shapes_and_k_are_checked():
    with pytest.raises(ValueError, match=r"\(B, C\)"):
        topk_correct(torch.zeros(2, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="at least 1"):
        topk_correct(torch.zeros(1, 3), torch.tensor([0]), k=0)
