"""The smallest networks of the papers' layouts, for several tests."""

UNET = {
    "sample_size": 4, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 12,
    "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": (1, 2),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "class_embed_type": "projection", "projection_class_embeddings_input_dim": 16, "use_linear_projection": True,
}  # fmt: skip
