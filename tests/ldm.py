"""Latent diffusion's networks in their original key layout, written from their description: what conversion is
compared with. ``camera_dim`` makes the UNet MVDream's; its self-attention then folds the views."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class ResBlock(nn.Module):
    def __init__(self, width, emb, out):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x, emb, context, views):
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Identity())

    def forward(self, x, context):
        b, n, c = x.shape
        q, k, v = (m(y).reshape(b, -1, self.heads, c // self.heads).transpose(1, 2)
                   for m, y in ((self.to_q, x), (self.to_k, context), (self.to_v, context)))  # fmt: skip
        weights = (q @ k.transpose(-1, -2) / math.sqrt(c // self.heads)).softmax(dim=-1)
        return self.to_out((weights @ v).transpose(1, 2).reshape(b, n, c))


class Geglu(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, inner * 2)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(Geglu(width, width * 4), nn.Identity(), nn.Linear(width * 4, width))

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.attn1, self.attn2 = CrossAttention(width, width, heads), CrossAttention(width, context, heads)
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x, context, views):
        frames, tokens, width = x.shape
        h = self.norm1(x).reshape(frames // views, views * tokens, width)
        x = x + self.attn1(h, h).reshape(frames, tokens, width)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, width, context, heads, linear):
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        layer = (lambda: nn.Linear(width, width)) if linear else (lambda: nn.Conv2d(width, width, 1))
        self.proj_in = layer()
        self.transformer_blocks = nn.ModuleList([Block(width, context, heads)])
        self.proj_out = layer()

    def forward(self, x, emb, context, views):
        _, c, height, width = x.shape
        h = self.norm(x)
        if not self.linear:
            h = self.proj_in(h)
        h = h.flatten(2).transpose(1, 2)
        if self.linear:
            h = self.proj_in(h)
        h = self.transformer_blocks[0](h, context, views)
        if self.linear:
            h = self.proj_out(h)
        h = h.transpose(1, 2).reshape(-1, c, height, width)
        return x + (h if self.linear else self.proj_out(h))


class Downsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x, *_):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x, *_):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class First(nn.Conv2d):
    def forward(self, x, *_):
        return super().forward(x)


class UNet(nn.Module):
    """attends : whether each level has attention, from the finest; heads : of each level."""

    def __init__(self, channels, blocks, attends, heads, context, inputs=4, camera_dim=None, linear=True):
        super().__init__()
        emb = channels[0] * 4
        self.width = channels[0]
        self.time_embed = nn.Sequential(nn.Linear(channels[0], emb), nn.SiLU(), nn.Linear(emb, emb))
        if camera_dim:
            self.camera_embed = nn.Sequential(nn.Linear(camera_dim, emb), nn.SiLU(), nn.Linear(emb, emb))

        def attention(level):
            return [SpatialTransformer(channels[level], context, heads[level], linear)] if attends[level] else []

        self.input_blocks = nn.ModuleList([nn.ModuleList([First(inputs, channels[0], 3, padding=1)])])
        widths, width = [channels[0]], channels[0]
        for level, out in enumerate(channels):
            for _ in range(blocks):
                self.input_blocks.append(nn.ModuleList([ResBlock(width, emb, out), *attention(level)]))
                width = out
                widths.append(width)
            if level < len(channels) - 1:
                self.input_blocks.append(nn.ModuleList([Downsample(width)]))
                widths.append(width)
        self.middle_block = nn.ModuleList([
            ResBlock(width, emb, width), SpatialTransformer(width, context, heads[-1], linear),
            ResBlock(width, emb, width),
        ])  # fmt: skip
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(channels))):
            for i in range(blocks + 1):
                layers = [ResBlock(width + widths.pop(), emb, channels[level]), *attention(level)]
                width = channels[level]
                if level and i == blocks:
                    layers.append(Upsample(width))
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, x, t, context, camera=None, views=1):
        frequencies = torch.exp(-math.log(10000) * torch.arange(self.width // 2) / (self.width // 2))
        angles = t[:, None].float() * frequencies
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=-1))
        if camera is not None:
            emb = emb + self.camera_embed(camera)
        kept = []
        for layers in self.input_blocks:
            for layer in layers:
                x = layer(x, emb, context, views)
            kept.append(x)
        for layer in self.middle_block:
            x = layer(x, emb, context, views)
        for layers in self.output_blocks:
            x = torch.cat([x, kept.pop()], dim=1)
            for layer in layers:
                x = layer(x, emb, context, views)
        return self.out(x)


class VaeBlock(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, width, eps=1e-6), nn.Conv2d(width, out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(32, out, eps=1e-6), nn.Conv2d(out, out, 3, padding=1)
        if width != out:
            self.nin_shortcut = nn.Conv2d(width, out, 1)

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class VaeAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (m(h).flatten(2) for m in (self.q, self.k, self.v))  # [B, C, N]
        weights = (q.transpose(1, 2) @ k / math.sqrt(x.shape[1])).softmax(dim=-1)  # [B, N, N]
        return x + self.proj_out((v @ weights.transpose(1, 2)).reshape(x.shape))


class Middle(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = VaeBlock(width, width), VaeAttention(width), VaeBlock(width, width)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Resample(nn.Module):
    def __init__(self, width, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(width, width, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2))


def level(width, out, blocks):
    holder = nn.Module()
    holder.block = nn.ModuleList([VaeBlock(width if i == 0 else out, out) for i in range(blocks)])
    return holder


class Encoder(nn.Module):
    def __init__(self, channels, blocks, latent):
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        for i, out in enumerate(channels):
            self.down.append(level(channels[max(i - 1, 0)], out, blocks))
            if i < len(channels) - 1:
                self.down[i].downsample = Resample(out, down=True)
        self.mid = Middle(channels[-1])
        self.norm_out = nn.GroupNorm(32, channels[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[-1], 2 * latent, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for stage in self.down:
            for block in stage.block:
                x = block(x)
            if hasattr(stage, "downsample"):
                x = stage.downsample(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, channels, blocks, latent):
        super().__init__()
        last = len(channels) - 1
        self.conv_in = nn.Conv2d(latent, channels[-1], 3, padding=1)
        self.mid = Middle(channels[-1])
        self.up = nn.ModuleList(
            level(channels[min(i + 1, last)], channels[i], blocks + 1) for i in range(len(channels))
        )
        for i in range(1, len(channels)):
            self.up[i].upsample = Resample(channels[i], down=False)
        self.norm_out = nn.GroupNorm(32, channels[0], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[0], 3, 3, padding=1)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for stage in reversed(self.up):
            for block in stage.block:
                x = block(x)
            if hasattr(stage, "upsample"):
                x = stage.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Vae(nn.Module):
    def __init__(self, channels, blocks=2, latent=4):
        super().__init__()
        self.encoder, self.decoder = Encoder(channels, blocks, latent), Decoder(channels, blocks, latent)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1), nn.Conv2d(latent, latent, 1)

    def mean(self, x):
        return self.quant_conv(self.encoder(x)).chunk(2, dim=1)[0]

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))
