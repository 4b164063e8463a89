// The panel of experts. (Made whole below.)
export const start = () => {};
export const connect = () => {};
export const begin = () => {};
export const end = () => null;
export const visible = () => {};
export const showPicture = () => {};
