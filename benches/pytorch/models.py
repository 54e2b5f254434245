"""Plain PyTorch versions of the networks that longcast trains, to measure against.

Written as such models usually are: one module per block, nothing folded or fused by hand.
State-dict names are those of the published checkpoints. All take x of shape [batch, lookback, variates]
and return [batch, horizon, variates]; only ITransformer looks at calendar features.
"""

import torch
from torch import nn
from torch.nn import functional as F


def time_map(lookback, horizon, variates, individual):
    """One linear map over time, or one per variate."""
    if individual:
        return nn.ModuleList(nn.Linear(lookback, horizon) for _ in range(variates))
    return nn.Linear(lookback, horizon)


def apply_time_map(layer, x):
    """Applies `time_map` to x of shape [batch, variates, lookback]."""
    if isinstance(layer, nn.ModuleList):
        return torch.stack([one(x[:, c]) for c, one in enumerate(layer)], dim=1)
    return layer(x)


class Linear(nn.Module):
    """A linear map over time."""

    def __init__(self, lookback, horizon, variates, individual=False):
        super().__init__()
        self.Linear = time_map(lookback, horizon, variates, individual)

    def forward(self, x, time_features=None):
        return apply_time_map(self.Linear, x.transpose(1, 2)).transpose(1, 2)


class NLinear(Linear):
    """The same map of the distance from the last value."""

    def forward(self, x, time_features=None):
        last = x[:, -1:, :].detach()
        return super().forward(x - last) + last


class DLinear(nn.Module):
    """One map of the moving average, one of the remainder."""

    def __init__(self, lookback, horizon, variates, individual=False, moving_avg=25):
        super().__init__()
        if moving_avg % 2 == 0:
            raise ValueError(f"the width of the moving average must be odd, not {moving_avg}")
        self.pad = (moving_avg - 1) // 2
        self.moving_avg = nn.AvgPool1d(moving_avg, stride=1)
        self.Linear_Seasonal = time_map(lookback, horizon, variates, individual)
        self.Linear_Trend = time_map(lookback, horizon, variates, individual)

    def forward(self, x, time_features=None):
        x = x.transpose(1, 2)
        trend = self.moving_avg(F.pad(x, (self.pad, self.pad), mode="replicate"))
        out = apply_time_map(self.Linear_Seasonal, x - trend) + apply_time_map(self.Linear_Trend, trend)
        return out.transpose(1, 2)


class FeedForward(nn.Module):
    """The second half of an encoder layer. Subclasses bring the first half, which mixes tokens."""

    def __init__(self, d_model, d_ff, dropout, activation=F.gelu):
        super().__init__()
        self.conv1 = nn.Conv1d(d_model, d_ff, kernel_size=1)
        self.conv2 = nn.Conv1d(d_ff, d_model, kernel_size=1)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation

    def mix(self, x):
        raise NotImplementedError

    def forward(self, x):
        x = self.norm1(x + self.dropout(self.mix(x)))
        y = self.dropout(self.activation(self.conv1(x.transpose(1, 2))))
        y = self.dropout(self.conv2(y).transpose(1, 2))
        return self.norm2(x + y)


class Encoder(nn.Module):
    """Encoder layers and a final layer norm."""

    def __init__(self, layers, d_model):
        super().__init__()
        self.attn_layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x):
        for layer in self.attn_layers:
            x = layer(x)
        return self.norm(x)


class Attention(nn.Module):
    """Multi-head self-attention without a mask."""

    def __init__(self, d_model, heads, dropout):
        super().__init__()
        self.query_projection = nn.Linear(d_model, d_model)
        self.key_projection = nn.Linear(d_model, d_model)
        self.value_projection = nn.Linear(d_model, d_model)
        self.out_projection = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)
        self.heads = heads
        self.scale = (d_model // heads) ** -0.5

    def forward(self, x):
        batch, tokens, width = x.shape
        split = (batch, tokens, self.heads, width // self.heads)
        queries = self.query_projection(x).view(split)
        keys = self.key_projection(x).view(split)
        values = self.value_projection(x).view(split)
        scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys)
        weights = self.dropout(F.softmax(self.scale * scores, dim=-1))
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, values)
        return self.out_projection(mixed.reshape(batch, tokens, width))


class AttentionLayer(FeedForward):
    def __init__(self, d_model, d_ff, heads, dropout, activation):
        super().__init__(d_model, d_ff, dropout, activation)
        self.attention = Attention(d_model, heads, dropout)

    def mix(self, x):
        return self.attention(x)


class InvertedEmbedding(nn.Module):
    """The whole lookback of one variate, or of one calendar feature, becomes one token."""

    def __init__(self, lookback, d_model, dropout):
        super().__init__()
        self.value_embedding = nn.Linear(lookback, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, time_features=None):
        tokens = x if time_features is None else torch.cat([x, time_features], dim=2)
        return self.dropout(self.value_embedding(tokens.transpose(1, 2)))


class ITransformer(nn.Module):
    """Attention between variates."""

    def __init__(
        self, lookback, horizon, variates, d_model, d_ff, heads, layers, dropout, use_norm=True, activation=F.gelu
    ):
        super().__init__()  # no parameter depends on the number of variates
        self.use_norm = use_norm
        self.enc_embedding = InvertedEmbedding(lookback, d_model, dropout)
        self.encoder = Encoder(
            [AttentionLayer(d_model, d_ff, heads, dropout, activation) for _ in range(layers)], d_model
        )
        self.projector = nn.Linear(d_model, horizon)

    def forward(self, x, time_features=None):
        variates = x.shape[2]
        if self.use_norm:
            mean = x.mean(dim=1, keepdim=True).detach()
            x = x - mean
            std = torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + 1e-5)
            x = x / std
        tokens = self.encoder(self.enc_embedding(x, time_features))
        out = self.projector(tokens).transpose(1, 2)[:, :, :variates]
        return out * std + mean if self.use_norm else out


class RevIN(nn.Module):
    """Reversible instance normalisation with a learned scale and shift for each variate."""

    def __init__(self, variates):
        super().__init__()
        self.affine_weight = nn.Parameter(torch.ones(variates))
        self.affine_bias = nn.Parameter(torch.zeros(variates))

    def normalise(self, x):
        mean = x.mean(dim=1, keepdim=True).detach()
        std = torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + 1e-5).detach()
        return (x - mean) / std * self.affine_weight + self.affine_bias, mean, std

    def denormalise(self, x, mean, std):
        return (x - self.affine_bias) / (self.affine_weight + 1e-10) * std + mean


class NormLinLayer(FeedForward):
    """Mixes variates by a matrix that does not depend on the input.

    The matrix is learned, or with `correlation` the softmax of that fixed one (OLinear-C).
    """

    def __init__(self, variates, d_model, d_ff, dropout, correlation=None):
        super().__init__(d_model, d_ff, dropout)
        if correlation is None:
            self.weight_mat = nn.Parameter(torch.eye(variates)[None] + torch.randn(1, variates, variates))
        else:
            self.weight_mat = None
            self.register_buffer("fixed", F.softmax(correlation, dim=-1)[None], persistent=False)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def mix(self, x):
        if self.weight_mat is None:
            weights = self.fixed
        else:
            weights = F.normalize(F.softplus(self.weight_mat), p=1, dim=-1)
        return self.out_proj(self.dropout(weights) @ self.v_proj(x))


class OLinear(nn.Module):
    """Linear layers in an orthogonally transformed time domain.

    `basis_in` and `basis_out` hold one basis vector a row. They are not part of the state dict.
    """

    def __init__(
        self,
        lookback,
        horizon,
        variates,
        embed_size,
        d_model,
        d_ff,
        layers,
        dropout,
        basis_in,
        basis_out,
        correlation=None,
    ):
        super().__init__()
        self.register_buffer("basis_in", basis_in, persistent=False)
        self.register_buffer("basis_out", basis_out, persistent=False)
        self.embed_size = embed_size
        self.horizon = horizon
        self.revin_layer = RevIN(variates)
        self.embeddings = nn.Parameter(torch.randn(1, embed_size))
        self.delta1 = nn.Parameter(torch.zeros(1, variates, 1, lookback))
        self.delta2 = nn.Parameter(torch.zeros(1, variates, 1, horizon))
        self.encoder = Encoder(
            [NormLinLayer(variates, d_model, d_ff, dropout, correlation) for _ in range(layers)], d_model
        )
        # Published checkpoints hold the encoder under both names.
        self.ortho_trans = nn.Sequential(
            nn.Linear(embed_size * lookback, d_model), self.encoder, nn.Linear(d_model, embed_size * horizon)
        )
        self.fc = nn.Sequential(nn.Linear(embed_size * horizon, d_ff), nn.GELU(), nn.Linear(d_ff, horizon))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, time_features=None):
        x, mean, std = self.revin_layer.normalise(x)
        x = x.transpose(1, 2).unsqueeze(2) * self.embeddings.view(1, 1, -1, 1)  # [batch, variates, embed, time]
        x = x @ self.basis_in.T + self.delta1
        x = self.ortho_trans(x.flatten(2))  # embed slow, time fast
        x = x.unflatten(2, (self.embed_size, self.horizon))
        x = x @ self.basis_out + self.delta2
        out = self.fc(x.transpose(2, 3).flatten(2))  # time slow, embed fast
        return self.revin_layer.denormalise(self.dropout(out.transpose(1, 2)), mean, std)


class OLinearC(OLinear):
    """OLinear whose mixing matrix comes from the correlation of the variates and is not learned."""

    def __init__(self, *args, correlation, **kwargs):
        super().__init__(*args, correlation=correlation, **kwargs)


def weighted_l1(output, target):
    """OLinear's training loss: step h of the horizon, from 0, counts (h + 1)^-0.5."""
    steps = torch.arange(1, output.shape[1] + 1, dtype=output.dtype)
    return ((output - target).abs() * steps.rsqrt()[:, None]).mean()


LOSSES = {"mse": F.mse_loss, "weighted-l1": weighted_l1}


def build(model, lookback, horizon, variates, network):
    """A model by the name that longcast uses. Bases and correlations are random: only their shape costs time."""
    simple = {"linear": Linear, "nlinear": NLinear, "dlinear": DLinear, "itransformer": ITransformer}
    if model in simple:
        return simple[model](lookback, horizon, variates, **network)
    bases = {
        "basis_in": torch.linalg.qr(torch.randn(lookback, lookback)).Q,
        "basis_out": torch.linalg.qr(torch.randn(horizon, horizon)).Q,
    }
    if model == "olinear":
        return OLinear(lookback, horizon, variates, **network, **bases)
    if model == "olinear-c":
        correlation = torch.corrcoef(torch.randn(variates, 2 * variates))
        return OLinearC(lookback, horizon, variates, **network, **bases, correlation=correlation)
    raise ValueError(f"no model is called {model!r}")
