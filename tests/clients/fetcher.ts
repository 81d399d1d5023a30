// What the functions that orval generates send their requests with: the address and the credential come from outside.
export const connection = { base: '', token: '' };

export const fetcher = async <T>(url: string, options: RequestInit): Promise<T> => {
  const headers = new Headers(options.headers);
  headers.set('authorization', `Bearer ${connection.token}`);
  const response = await fetch(connection.base + url, { ...options, headers });
  const text = await response.text();
  const data: unknown = text === '' ? undefined : JSON.parse(text);
  return { data, status: response.status, headers: response.headers } as T;
};
