"""The attack of Carlini et al. (2023): what to generate, which targets were memorised, which training images are outliers."""
