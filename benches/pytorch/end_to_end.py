"""DLinear on ETTh1, 96 to 96, from the start of the program to the test score, as the public scripts do it.

    python benches/pytorch/end_to_end.py ETT-small/ETTh1.csv

Beside it: longcast evaluate --dataset ETTh1 --model dlinear --preset dlinear-96 --lookback 96 --horizon 96
"""

import copy
import sys

import pandas
import torch
from torch.utils.data import DataLoader, Dataset

from models import build

LOOKBACK, HORIZON, BATCH, EPOCHS, PATIENCE, RATE = 96, 96, 32, 10, 3, 1e-4
# Rows of the training, validation and test parts: 12, 4 and 4 months of 30 days.
PARTS = (8640, 11520, 14400)


class Windows(Dataset):
    """Every window whose target lies in a part."""

    def __init__(self, values, start, end):
        self.values = values[max(start - LOOKBACK, 0) : end]

    def __len__(self):
        return len(self.values) - LOOKBACK - HORIZON + 1

    def __getitem__(self, index):
        middle = index + LOOKBACK
        return self.values[index:middle], self.values[middle : middle + HORIZON]


@torch.no_grad()
def errors(model, loader):
    """Mean squared and mean absolute error over all windows."""
    model.eval()
    square, absolute, count = 0.0, 0.0, 0
    for x, y in loader:
        error = model(x, None) - y
        square += error.square().sum().item()
        absolute += error.abs().sum().item()
        count += error.numel()
    return square / count, absolute / count


def main():
    torch.manual_seed(2021)
    torch.set_num_threads(2)
    values = pandas.read_csv(sys.argv[1]).iloc[:, 1:].to_numpy()
    train = values[: PARTS[0]]
    values = torch.tensor((values - train.mean(0)) / train.std(0), dtype=torch.float32)
    parts = [Windows(values, start, end) for start, end in zip((0, *PARTS), PARTS)]
    train, valid, test = (DataLoader(part, BATCH, shuffle=part is parts[0]) for part in parts)

    model = build("dlinear", LOOKBACK, HORIZON, values.shape[1], {})
    # The Time-Series-Library starts both maps as the mean of the lookback.
    for name, weight in model.named_parameters():
        if name.endswith("weight"):
            torch.nn.init.constant_(weight, 1 / LOOKBACK)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    best, without = (float("inf"), None), 0
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 ** max(epoch - 2, 0)
        for x, y in train:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x, None), y).backward()
            optimizer.step()
        loss, _ = errors(model, valid)
        if loss <= best[0]:
            best, without = (loss, copy.deepcopy(model.state_dict())), 0
        else:
            without += 1
            if without == PATIENCE:
                break
    model.load_state_dict(best[1])
    print("MSE %.5f  MAE %.5f" % errors(model, test))


if __name__ == "__main__":
    main()
