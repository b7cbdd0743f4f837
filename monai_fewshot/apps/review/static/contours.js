// Copyright (c) monai_fewshot contributors
// SPDX-License-Identifier: Apache-2.0
"use strict";

// NiiVue fills masks, and blurs them between slices. This makes it draw them voxel by voxel, with a contour in each
// plane: its shader takes the color of a voxel in one line, which is replaced when the shader is compiled. Where that
// line is not found, masks are filled.

const FILLED = "ocolor = texture(overlay, texPos);";
const CONTOURED = `
    ivec3 size = textureSize(overlay, 0);
    ivec3 last = size - 1;
    ivec3 here = clamp(ivec3(floor(texPos * vec3(size))), ivec3(0), last);
    ocolor = texelFetch(overlay, here, 0);
    if (ocolor.a > 0.0) {
      ivec3 u = axCorSag == 2 ? ivec3(0, 1, 0) : ivec3(1, 0, 0);
      ivec3 v = axCorSag == 0 ? ivec3(0, 1, 0) : ivec3(0, 0, 1);
      vec4 right = texelFetch(overlay, min(here + u, last), 0);
      vec4 left = texelFetch(overlay, max(here - u, 0), 0);
      vec4 above = texelFetch(overlay, min(here + v, last), 0);
      vec4 below = texelFetch(overlay, max(here - v, 0), 0);
      bool isInside = right == ocolor && left == ocolor && above == ocolor && below == ocolor;
      ocolor.a = isInside ? 0.2 : 1.0;
    }
`;

const compiled = WebGL2RenderingContext.prototype.shaderSource;
WebGL2RenderingContext.prototype.shaderSource = function shaderSource(shader, text) {
  compiled.call(this, shader, text.replace(FILLED, CONTOURED));
};
