"""Plain PyTorch versions of the networks that longcast trains, to measure against.

Written as such models usually are: one module per block, nothing folded or fused by hand.
State-dict names are those of the published checkpoints. All take x of shape [batch, lookback, variates]
and return [batch, horizon, variates]. ITransformer, Autoformer and Informer look at calendar features; the last
two have a decoder, which takes those of the last `label` steps of the lookback and of the horizon.
"""

import math

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


class MovingAverage(nn.Module):
    """Along the last axis, beyond whose ends the end values go on."""

    def __init__(self, width):
        super().__init__()
        if width % 2 == 0:
            raise ValueError(f"the width of the moving average must be odd, not {width}")
        self.pad = (width - 1) // 2
        self.pool = nn.AvgPool1d(width, stride=1)

    def forward(self, x):
        return self.pool(F.pad(x, (self.pad, self.pad), mode="replicate"))


class DLinear(nn.Module):
    """One map of the moving average, one of the remainder."""

    def __init__(self, lookback, horizon, variates, individual=False, moving_avg=25):
        super().__init__()
        self.moving_avg = MovingAverage(moving_avg)
        self.Linear_Seasonal = time_map(lookback, horizon, variates, individual)
        self.Linear_Trend = time_map(lookback, horizon, variates, individual)

    def forward(self, x, time_features=None):
        x = x.transpose(1, 2)
        trend = self.moving_avg(x)
        out = apply_time_map(self.Linear_Seasonal, x - trend) + apply_time_map(self.Linear_Trend, trend)
        return out.transpose(1, 2)


class FeedForward(nn.Module):
    """Two maps of each token, with which the layers below end."""

    def __init__(self, d_model, d_ff, dropout, activation=F.gelu, bias=True):
        super().__init__()
        self.conv1 = nn.Conv1d(d_model, d_ff, kernel_size=1, bias=bias)
        self.conv2 = nn.Conv1d(d_ff, d_model, kernel_size=1, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation

    def feed(self, x):
        y = self.dropout(self.activation(self.conv1(x.transpose(1, 2))))
        return self.dropout(self.conv2(y).transpose(1, 2))


class EncoderLayer(FeedForward):
    """Subclasses bring its first half, which mixes tokens."""

    def __init__(self, d_model, d_ff, dropout, activation=F.gelu):
        super().__init__(d_model, d_ff, dropout, activation)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def mix(self, x):
        raise NotImplementedError

    def forward(self, x):
        x = self.norm1(x + self.dropout(self.mix(x)))
        return self.norm2(x + self.feed(x))


class Encoder(nn.Module):
    """Encoder layers, whatever comes between them, and a final norm."""

    def __init__(self, layers, norm, between=()):
        super().__init__()
        self.attn_layers = nn.ModuleList(layers)
        self.conv_layers = nn.ModuleList(between)
        self.norm = norm

    def forward(self, x):
        for number, layer in enumerate(self.attn_layers):
            x = layer(x)
            if number < len(self.conv_layers):
                x = self.conv_layers[number](x)
        return self.norm(x)


class Attention(nn.Module):
    """Multi-head attention to the tokens themselves or to those of `memory`. Subclasses replace `attend`."""

    def __init__(self, d_model, heads, dropout=0.0, causal=False):
        super().__init__()
        self.query_projection = nn.Linear(d_model, d_model)
        self.key_projection = nn.Linear(d_model, d_model)
        self.value_projection = nn.Linear(d_model, d_model)
        self.out_projection = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)
        self.causal = causal
        self.heads = heads
        self.scale = (d_model // heads) ** -0.5

    def attend(self, queries, keys, values):
        """All are [batch, tokens, heads, channels]."""
        scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys)
        if self.causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, -torch.inf)
        weights = self.dropout(F.softmax(self.scale * scores, dim=-1))
        return torch.einsum("bhqk,bkhd->bqhd", weights, values)

    def forward(self, x, memory=None):
        memory = x if memory is None else memory
        batch, tokens, width = x.shape
        split = (batch, -1, self.heads, width // self.heads)
        queries = self.query_projection(x).view(split)
        keys = self.key_projection(memory).view(split)
        values = self.value_projection(memory).view(split)
        return self.out_projection(self.attend(queries, keys, values).reshape(batch, tokens, width))


class AttentionLayer(EncoderLayer):
    def __init__(self, attention, d_model, d_ff, dropout, activation=F.gelu):
        super().__init__(d_model, d_ff, dropout, activation)
        self.attention = attention

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
        attentions = [Attention(d_model, heads, dropout) for _ in range(layers)]
        self.encoder = Encoder(
            [AttentionLayer(attention, d_model, d_ff, dropout, activation) for attention in attentions],
            nn.LayerNorm(d_model),
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


class NormLinLayer(EncoderLayer):
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
            [NormLinLayer(variates, d_model, d_ff, dropout, correlation) for _ in range(layers)],
            nn.LayerNorm(d_model),
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


def positions(steps, d_model):
    """Sines and cosines of each step; published checkpoints hold this table, for 5000 steps, as a buffer."""
    rates = 10000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    angles = torch.arange(steps)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class TimeEmbedding(nn.Module):
    """Each step becomes one token: its values and its neighbours', its calendar and with `steps` its position."""

    def __init__(self, variates, time_features, d_model, dropout, steps=None, bias=False):
        super().__init__()
        conv = nn.Conv1d(variates, d_model, kernel_size=3, padding=1, padding_mode="circular", bias=bias)
        nn.init.kaiming_normal_(conv.weight, a=0.01)
        self.value_embedding = nn.ModuleDict({"tokenConv": conv})
        self.temporal_embedding = nn.ModuleDict()
        if time_features:
            self.temporal_embedding["embed"] = nn.Linear(time_features, d_model, bias=bias)
        table = None if steps is None else positions(steps, d_model)
        self.register_buffer("positions", table, persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, time_features=None):
        tokens = self.value_embedding["tokenConv"](x.transpose(1, 2)).transpose(1, 2)
        if time_features is not None:
            tokens = tokens + self.temporal_embedding["embed"](time_features)
        if self.positions is not None:
            tokens = tokens + self.positions
        return self.dropout(tokens)


class AutoCorrelation(Attention):
    """The values at the lags at which queries are most like keys, instead of attention.

    In training the batch shares its lags; otherwise each window has its own.
    """

    def __init__(self, d_model, heads, factor):
        super().__init__(d_model, heads)
        self.factor = factor

    def attend(self, queries, keys, values):
        length = queries.shape[1]
        if keys.shape[1] != length:  # what is missing is zero, what is too much is cut
            fit = (0, 0, 0, 0, 0, length - keys.shape[1])
            keys, values = F.pad(keys, fit), F.pad(values, fit)
        queries, keys, values = (tensor.permute(0, 2, 3, 1).contiguous() for tensor in (queries, keys, values))
        spectrum = torch.fft.rfft(queries) * torch.conj(torch.fft.rfft(keys))
        scores = torch.fft.irfft(spectrum, n=length).mean(dim=(1, 2))  # of each lag: [batch, length]
        count = int(self.factor * math.log(length))
        if self.training:
            lags = scores.mean(dim=0).topk(count).indices
            best = scores[:, lags]
            rolled = (values.roll(-lag, dims=-1) for lag in lags.tolist())
        else:
            best, lags = scores.topk(count)
            steps = lags[:, :, None] + torch.arange(length)  # [batch, lags, length]
            twice = torch.cat([values, values], dim=-1)
            rolled = (twice.gather(-1, step[:, None, None].expand_as(values)) for step in steps.unbind(1))
        weights = F.softmax(best, dim=-1)[:, :, None, None, None]
        mixed = torch.zeros_like(values)
        for number, series in enumerate(rolled):
            mixed = mixed + series * weights[:, number]
        return mixed.permute(0, 3, 1, 2)


class Decomposition(nn.Module):
    """Splits x of shape [batch, time, channels] into what is left without its moving average, and that."""

    def __init__(self, width):
        super().__init__()
        self.moving_avg = MovingAverage(width)

    def forward(self, x):
        trend = self.moving_avg(x.transpose(1, 2)).transpose(1, 2)
        return x - trend, trend


class SeasonalNorm(nn.Module):
    """A layer norm without its mean over time."""

    def __init__(self, d_model):
        super().__init__()
        self.layernorm = nn.LayerNorm(d_model)

    def forward(self, x):
        x = self.layernorm(x)
        return x - x.mean(dim=1, keepdim=True)


class AutoformerEncoderLayer(FeedForward):
    """A decomposition stands where others have a norm, and its trend is dropped."""

    def __init__(self, d_model, d_ff, heads, factor, moving_average, dropout):
        super().__init__(d_model, d_ff, dropout, bias=False)
        self.attention = AutoCorrelation(d_model, heads, factor)
        self.decompose = Decomposition(moving_average)

    def forward(self, x):
        x, _ = self.decompose(x + self.dropout(self.attention(x)))
        return self.decompose(x + self.feed(x))[0]


class AutoformerDecoderLayer(FeedForward):
    """The same with attention to the encoder; it returns the sum of its trends too, mapped to the variates."""

    def __init__(self, variates, d_model, d_ff, heads, factor, moving_average, dropout):
        super().__init__(d_model, d_ff, dropout, bias=False)
        self.self_attention = AutoCorrelation(d_model, heads, factor)
        self.cross_attention = AutoCorrelation(d_model, heads, factor)
        self.decompose = Decomposition(moving_average)
        self.projection = nn.Conv1d(d_model, variates, kernel_size=3, padding=1, padding_mode="circular", bias=False)

    def forward(self, x, memory):
        x, first = self.decompose(x + self.dropout(self.self_attention(x)))
        x, second = self.decompose(x + self.dropout(self.cross_attention(x, memory)))
        x, third = self.decompose(x + self.feed(x))
        return x, self.projection((first + second + third).transpose(1, 2)).transpose(1, 2)


class AutoformerDecoder(nn.Module):
    """What is left after all layers, mapped to the variates, and all trends."""

    def __init__(self, layers, variates, d_model):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = SeasonalNorm(d_model)
        self.projection = nn.Linear(d_model, variates)

    def forward(self, x, memory, trend):
        for layer in self.layers:
            x, more = layer(x, memory)
            trend = trend + more
        return self.projection(self.norm(x)) + trend


class Autoformer(nn.Module):
    """Auto-correlation between steps, and a decomposition after every part of a layer."""

    def __init__(
        self,
        lookback,
        horizon,
        variates,
        time_features,
        d_model,
        d_ff,
        encoder_layers,
        decoder_layers,
        label,
        moving_average,
        factor,
        dropout,
        heads=8,
    ):
        super().__init__()  # no parameter depends on lookback, label and horizon
        self.label = label
        self.horizon = horizon
        self.decompose = Decomposition(moving_average)
        self.enc_embedding = TimeEmbedding(variates, time_features, d_model, dropout)
        self.dec_embedding = TimeEmbedding(variates, time_features, d_model, dropout)
        sizes = (d_model, d_ff, heads, factor, moving_average, dropout)
        self.encoder = Encoder([AutoformerEncoderLayer(*sizes) for _ in range(encoder_layers)], SeasonalNorm(d_model))
        self.decoder = AutoformerDecoder(
            [AutoformerDecoderLayer(variates, *sizes) for _ in range(decoder_layers)], variates, d_model
        )

    def forward(self, x, time_features=None, decoder_time=None):
        seasonal, trend = self.decompose(x)
        future = x.mean(dim=1, keepdim=True).expand(-1, self.horizon, -1)
        trend = torch.cat([trend[:, -self.label :], future], dim=1)
        seasonal = F.pad(seasonal[:, -self.label :], (0, 0, 0, self.horizon))
        memory = self.encoder(self.enc_embedding(x, time_features))
        out = self.decoder(self.dec_embedding(seasonal, decoder_time), memory, trend)
        return out[:, -self.horizon :]


class ProbAttention(Attention):
    """Attention of those queries only that stand out among random keys.

    The others get the mean of the values, or with `causal` the sum up to their own.
    `scramble` takes the result, which lies head by head, as if it lay token by token.
    """

    def __init__(self, d_model, heads, factor, causal=False, scramble=False):
        super().__init__(d_model, heads, causal=causal)
        self.factor = factor
        self.scramble = scramble

    def count(self, length):
        return min(self.factor * math.ceil(math.log(length)), length)

    def attend(self, queries, keys, values):
        queries, keys, values = (tensor.transpose(1, 2) for tensor in (queries, keys, values))
        (batch, heads, asking, _), asked = queries.shape, keys.shape[2]

        # The same keys for all windows and heads: [batch, heads, queries, sample, channels].
        sample = keys[:, :, torch.randint(asked, (asking, self.count(asked)))]
        scores = (queries.unsqueeze(3) @ sample.transpose(3, 4)).squeeze(3)
        top = (scores.amax(dim=3) - scores.sum(dim=3) / asked).topk(self.count(asking), sorted=False).indices

        chosen = (torch.arange(batch)[:, None, None], torch.arange(heads)[:, None], top)
        scores = self.scale * (queries[chosen] @ keys.transpose(2, 3))
        if self.causal:
            scores = scores.masked_fill(torch.arange(asked) > top.unsqueeze(3), -torch.inf)
            mixed = values.cumsum(dim=2)
        else:
            mixed = values.mean(dim=2, keepdim=True).repeat(1, 1, asking, 1)
        mixed[chosen] = F.softmax(scores, dim=3) @ values
        return mixed if self.scramble else mixed.transpose(1, 2)


class Distilling(nn.Module):
    """Halves the number of tokens."""

    def __init__(self, d_model, padding):
        super().__init__()
        self.downConv = nn.Conv1d(d_model, d_model, kernel_size=3, padding=padding, padding_mode="circular")
        self.norm = nn.BatchNorm1d(d_model)
        self.pool = nn.MaxPool1d(kernel_size=3, stride=2, padding=1)

    def forward(self, x):
        return self.pool(F.elu(self.norm(self.downConv(x.transpose(1, 2))))).transpose(1, 2)


class InformerDecoderLayer(FeedForward):
    def __init__(self, self_attention, cross_attention, d_model, d_ff, dropout):
        super().__init__(d_model, d_ff, dropout)
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)

    def forward(self, x, memory):
        x = self.norm1(x + self.dropout(self.self_attention(x)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory)))
        return self.norm3(x + self.feed(x))


class InformerDecoder(nn.Module):
    def __init__(self, layers, d_model):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x, memory):
        for layer in self.layers:
            x = layer(x, memory)
        return self.norm(x)


class Informer(nn.Module):
    """Attention of few queries, and half as many tokens after each encoder layer but the last.

    As its authors have it; with `tslib` as the Time-Series-Library does: every attention is sparse and scrambles,
    distilling adds two tokens before it halves, embeddings have no bias.
    """

    def __init__(
        self,
        lookback,
        horizon,
        variates,
        time_features,
        d_model,
        d_ff,
        heads,
        encoder_layers,
        decoder_layers,
        label,
        factor,
        dropout,
        distil=True,
        tslib=False,
    ):
        super().__init__()  # no parameter depends on lookback, label and horizon
        self.label = label
        self.horizon = horizon

        def embedding(steps):
            return TimeEmbedding(variates, time_features, d_model, dropout, steps, bias=not tslib)

        def encoder_layer():
            attention = ProbAttention(d_model, heads, factor, scramble=tslib)
            return AttentionLayer(attention, d_model, d_ff, dropout)

        def decoder_layer():
            own = ProbAttention(d_model, heads, factor, causal=True, scramble=True)
            sparse = ProbAttention(d_model, heads, factor, scramble=True)
            cross = sparse if tslib else Attention(d_model, heads, dropout)
            return InformerDecoderLayer(own, cross, d_model, d_ff, dropout)

        self.enc_embedding = embedding(lookback)
        self.dec_embedding = embedding(label + horizon)
        self.encoder = Encoder(
            [encoder_layer() for _ in range(encoder_layers)],
            nn.LayerNorm(d_model),
            [Distilling(d_model, padding=2 if tslib else 1) for _ in range(encoder_layers - 1 if distil else 0)],
        )
        self.decoder = InformerDecoder([decoder_layer() for _ in range(decoder_layers)], d_model)
        self.projection = nn.Linear(d_model, variates)

    def forward(self, x, time_features=None, decoder_time=None):
        memory = self.encoder(self.enc_embedding(x, time_features))
        start = F.pad(x[:, -self.label :], (0, 0, 0, self.horizon))
        out = self.projection(self.decoder(self.dec_embedding(start, decoder_time), memory))
        return out[:, -self.horizon :]


class GPHTStage(nn.Module):
    """Forecasts the token after each, seeing the series through a max-pool of width `rate`."""

    def __init__(self, tokens, token, rate, d_model, d_ff, heads, layers, dropout):
        super().__init__()
        self.patch = token // rate
        self.pool = nn.MaxPool1d(rate)
        self.patch_embedding = nn.ModuleDict({"value_embedding": nn.Linear(self.patch, d_model, bias=False)})
        self.register_buffer("positions", positions(tokens, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)
        attentions = [Attention(d_model, heads, dropout, causal=True) for _ in range(layers)]
        self.encoder = Encoder(
            [AttentionLayer(attention, d_model, d_ff, dropout) for attention in attentions], nn.LayerNorm(d_model)
        )
        self.forecast_head = nn.Linear(d_model, token)

    def forward(self, x):
        batch, _, variates = x.shape
        patches = self.pool(x.transpose(1, 2)).reshape(batch * variates, -1, self.patch)
        tokens = self.dropout(self.patch_embedding["value_embedding"](patches) + self.positions)
        out = self.forecast_head(self.encoder(tokens))
        return out.reshape(batch, variates, -1).transpose(1, 2)


class GPHT(nn.Module):
    """Forecasts the next token of each series, from coarse to fine: a stage sees what those before left over."""

    def __init__(self, lookback, horizon, variates, token, pooling, d_model, d_ff, heads, layers, dropout):
        super().__init__()  # no parameter depends on lookback, horizon and the number of variates
        self.token = token
        self.horizon = horizon
        sizes = (d_model, d_ff, heads, layers, dropout)
        self.encoders = nn.ModuleList(GPHTStage(lookback // token, token, rate, *sizes) for rate in pooling)

    def next_tokens(self, x, time_features=None):
        """What follows each token of x, where that token lies: [batch, lookback, variates]. Trained on all."""
        mean = x.mean(dim=1, keepdim=True)
        std = torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + 1e-5)
        left, out = (x - mean) / std, 0.0
        for stage in self.encoders:
            more = stage(left)
            out = out + more
            left = left - F.pad(more[:, : -self.token], (0, 0, self.token, 0))
        return out * std + mean

    def forward(self, x, time_features=None):
        tokens = []
        for _ in range(math.ceil(self.horizon / self.token)):
            tokens.append(self.next_tokens(x)[:, -self.token :])
            x = torch.cat([x, tokens[-1]], dim=1)[:, self.token :]
        return torch.cat(tokens, dim=1)[:, : self.horizon]


def weighted_l1(output, target):
    """OLinear's training loss: step h of the horizon, from 0, counts (h + 1)^-0.5."""
    steps = torch.arange(1, output.shape[1] + 1, dtype=output.dtype)
    return ((output - target).abs() * steps.rsqrt()[:, None]).mean()


LOSSES = {"mse": F.mse_loss, "weighted-l1": weighted_l1}


def build(model, lookback, horizon, variates, network, time_features=0):
    """A model by the name that longcast uses. Bases and correlations are random: only their shape costs time."""
    simple = {"linear": Linear, "nlinear": NLinear, "dlinear": DLinear, "itransformer": ITransformer, "gpht": GPHT}
    if model in simple:
        return simple[model](lookback, horizon, variates, **network)
    with_decoder = {"autoformer": Autoformer, "informer": Informer}
    if model in with_decoder:
        return with_decoder[model](lookback, horizon, variates, time_features, **network)
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
